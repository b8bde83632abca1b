"""The demonstration's bridge, for gunicorn. A header names its people; who asks without it is `local`."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from flask import Flask, Request

from ...extension import AIBridge, create_app
from ...identity.local import local
from ...model import Actor
from ...waiting import start_thread
from .people import PEOPLE

PERSON_HEADER = "X-Demo-Person"
_PEOPLE = {person.id: Actor(person.id, {"username": person.name}, groups=person.groups) for person in PEOPLE}


def create(pipe: int) -> Flask:
    """Returns the application, with the configuration that AIBRIDGE_CONFIG names.

    `pipe` is the reading end of one that the demonstration holds open: if it is killed, the bridge ends, too,
    and deletes the folder of the configuration.
    """
    start_thread(lambda: _end_with(pipe, Path(os.environ["AIBRIDGE_CONFIG"]).parent))
    app = create_app()
    bridge: AIBridge = app.extensions["aibridge"]

    @bridge.actor_loader
    def load(request: Request) -> Actor | None:
        user = local(request)
        name = request.headers.get(PERSON_HEADER, "").encode("latin-1").decode("utf-8", "replace")
        return _PEOPLE.get(name) if name else user

    return app


def _end_with(pipe: int, folder: Path) -> None:
    os.read(pipe, 1)  # nothing is ever written
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)
