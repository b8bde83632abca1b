"""Lists of models for those who may use only some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import time
from typing import Any

from . import clients
from .config.settings import RuleSettings
from .formats import body
from .limits.limit import Asked, called_model, matches
from .limits.rules import allowed_models
from .model import Actor, ClientRequest

_LISTS = ("data", "models")  # Codex's own list has the second name
_NAMES = ("id", "slug", "name")


def allowed_in_list(rules: Sequence[RuleSettings], request: ClientRequest, actor: Actor) -> tuple[str, ...]:
    """Returns the patterns of the models that may stand in the answer; none: it stays as it is."""
    if not rules or not request.path.rstrip("/").endswith("/models"):
        return ()
    client = clients.client_name(request.headers)
    return allowed_models(
        rules, Asked(actor.id, int(time()), actor.groups, token=actor.token_id, client=client)
    )


def filtered(data: bytes, allowed: Sequence[str]) -> bytes:
    """Returns a list of models without those that are not allowed. What is no such list stays as it is.

    >>> filtered(b'{"data":[{"id":"a-1"},{"id":"b-1"}],"first_id":"a-1","last_id":"b-1"}', ["a-*"])
    b'{"data":[{"id":"a-1"}],"first_id":"a-1","last_id":"a-1"}'
    """
    value = body.loads(data)
    if not isinstance(value, Mapping):
        return data
    lists = {name: _filtered(value[name], allowed) for name in _LISTS if isinstance(value.get(name), list)}
    return body.dumps({**value, **lists, **_ends(value, lists.get("data", []))}) if lists else data


def _filtered(models: Sequence[Any], allowed: Sequence[str]) -> list[Any]:
    named = ((model, _name(model)) for model in models)
    return [model for model, name in named if matches(allowed, called_model(name, name))]


def _name(model: Any) -> str:
    names = [model[name] for name in _NAMES if name in model] if isinstance(model, Mapping) else []
    return str(next(iter(names), ""))


def _ends(value: Mapping[str, Any], models: Sequence[Any]) -> dict[str, Any]:
    """Anthropic's lists name their first and last model."""
    ends = {"first_id": models[:1], "last_id": models[-1:]}
    return {name: _name(*found) if found else None for name, found in ends.items() if name in value}
