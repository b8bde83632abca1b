"""The demonstration's bridge, for gunicorn. A header names its people; who asks without it is `local`."""

from __future__ import annotations

from flask import Flask, Request

from ...extension import AIBridge, create_app
from ...identity.local import local
from ...model import Actor
from .people import PEOPLE

PERSON_HEADER = "X-Demo-Person"
_PEOPLE = {person.id: Actor(person.id, {"username": person.name}, groups=person.groups) for person in PEOPLE}


def create() -> Flask:
    """Returns the application, with the configuration that AIBRIDGE_CONFIG names."""
    app = create_app()
    bridge: AIBridge = app.extensions["aibridge"]

    @bridge.actor_loader
    def load(request: Request) -> Actor | None:
        user = local(request)
        name = request.headers.get(PERSON_HEADER, "").encode("latin-1").decode("utf-8", "replace")
        return _PEOPLE.get(name) if name else user

    return app
