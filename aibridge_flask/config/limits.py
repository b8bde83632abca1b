"""The schemas of limits and rules, in the file and in the API."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from marshmallow import ValidationError, fields, post_load, validates_schema

from ..model import identifier
from .base import Frozen, doc, one_of
from .fields import NOT_NEGATIVE, Count, Number, Text, Texts, model_pattern, optional_url
from .settings import LimitSettings, LimitsSettings, RuleSettings, Scope

MICROS = 1_000_000
UNITS = ("usd", "tokens", "requests", "parallel")
PERIODS = ("minute", "hour", "day", "week", "month", "total")
SCOPES = ("actor", "group", "session", "agent", "token")
_MAX_AMOUNT = (1 << 53) - 1
_SCOPE_EXPECTED = '"everyone" or a table with one of actor, group, session, agent, token is expected'


class ScopeField(fields.Field[Scope]):
    """`"everyone"`, or a table such as `{ actor = "ann" }` or `{ group = "g", shared = true }`."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Scope:
        if value == "everyone":
            return Scope()
        if not isinstance(value, Mapping):
            raise ValidationError(_SCOPE_EXPECTED)
        names, shared = {**value}, value.get("shared", False)
        names.pop("shared", None)
        if len(names) != 1 or not {*names} <= {*SCOPES}:
            raise ValidationError(_SCOPE_EXPECTED)
        ((kind, of),) = names.items()
        if not isinstance(of, str) or not of.strip() or of != identifier(of):
            raise ValidationError(f"a name or `*` is expected for {kind}")
        if not isinstance(shared, bool) or (shared and kind != "group"):
            raise ValidationError("`shared` is true or false, and of groups only")
        return Scope(kind, of, shared)

    def _serialize(self, value: Scope | None, attr: str | None, obj: Any, **kwargs: Any) -> Any:
        if value is None or value.kind == "everyone":
            return "everyone"
        return {value.kind: value.of, **({"shared": True} if value.shared else {})}


def scope_of_text(text: str, shared: bool = False) -> Any:
    """Returns a scope as the file has it, of a command line's or a form's text.

    >>> scope_of_text("everyone"), scope_of_text("group=g", True), scope_of_text('{ session = "*" }')
    ('everyone', {'group': 'g', 'shared': True}, {'session': '*'})
    """
    if text.startswith("{"):
        try:
            return tomllib.loads(f"scope = {text}")["scope"]
        except tomllib.TOMLDecodeError:
            return text
    kind, equals, of = (part.strip() for part in text.partition("="))
    return {kind: of, **({"shared": True} if shared else {})} if equals else text


class Moment(fields.AwareDateTime):
    """A time; one without a zone is in UTC."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(format="iso", default_timezone=UTC, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, datetime):  # TOML has times
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return super()._deserialize(value, attr, data, **kwargs)


def _is_name(name: str) -> None:
    if not name.strip() or not name.isprintable() or name != identifier(name) or name != name.strip():
        raise ValidationError("one line of text is expected")


def _are_patterns(names: tuple[str, ...]) -> None:
    for name in names:
        model_pattern(name)


# fmt: off


class LimitSchema(Frozen):
    value_class = LimitSettings
    name = Text(required=True, validate=_is_name, metadata=doc("what it is known by, on all hosts"))
    scope = ScopeField(required=True, metadata=doc('`"everyone"`, or `{ actor = "ann" }`, `{ group = "g" }` (each member by itself; with `shared = true` one pool), `{ session = "*" }`, `{ agent = "*" }`, `{ token = "ID" }`; `*`: each one by itself'))
    models = Texts(load_default=(), validate=_are_patterns, metadata=doc("the models that it is about; a name may end in `*`; none: all"))
    providers = Texts(load_default=(), metadata=doc("the names of providers; none: all"))
    clients = Texts(load_default=(), metadata=doc("the names of clients; none: all"))
    per = Text(load_default="", validate=one_of("", *PERIODS), metadata=doc("`minute`, `hour` (both slide), `day`, `week` (from Monday), `month` (all in UTC) or `total`; none for `parallel`"))
    usd = Number(validate=NOT_NEGATIVE, metadata=doc("US$; one of `usd`, `tokens`, `requests`, `parallel` is set"))
    tokens = Count(metadata=doc("tokens of all kinds"))
    requests = Count(metadata=doc("requests that reach an upstream"))
    parallel = Count(metadata=doc("requests at a time"))
    mode = Text(load_default="enforce", validate=one_of("shadow", "warn", "enforce"), metadata=doc("`shadow` (only recorded), `warn` (told) or `enforce`"))
    credential = Text(load_default="centralized", validate=one_of("centralized", "any"), metadata=doc("`centralized`: what users pay with their own keys does not count; or `any`"))
    until = Moment(metadata=doc("when it ends"))
    instead = Texts(load_default=(), validate=_are_patterns, metadata=doc("models that may still be used when it is used up"))

    # fmt: on

    @validates_schema
    def _is_whole(self, data: dict[str, Any], **kwargs: Any) -> None:
        units = [unit for unit in UNITS if unit in data]
        if len(units) != 1:
            raise ValidationError("one of usd, tokens, requests, parallel is expected")
        if bool(data["per"]) == (units == ["parallel"]):
            raise ValidationError("a limit has a period, one of parallel requests has none", "per")
        if data[units[0]] * (MICROS if units == ["usd"] else 1) > _MAX_AMOUNT:
            raise ValidationError("a smaller number is expected", units[0])

    @post_load
    def _make(self, data: dict[str, Any], **kwargs: Any) -> LimitSettings:
        (unit,) = (unit for unit in UNITS if unit in data)
        amount = data.pop(unit)
        until = (data.pop("until"),) if "until" in data else ()
        whole = round(amount * MICROS) if unit == "usd" else amount
        return LimitSettings(**data, unit=unit, amount=whole, until=until)


def definition(limit: LimitSettings) -> dict[str, Any]:
    """Returns a limit as JSON has it; LimitSchema loads it again."""
    amount = limit.amount / MICROS if limit.unit == "usd" else limit.amount
    whole = {
        "name": limit.name,
        "scope": ScopeField()._serialize(limit.scope, None, None),  # noqa: SLF001
        "models": list(limit.models),
        "providers": list(limit.providers),
        "clients": list(limit.clients),
        limit.unit: amount,
        "mode": limit.mode,
        "credential": limit.credential,
        "instead": list(limit.instead),
    }
    if limit.per:
        whole["per"] = limit.per
    for until in limit.until:
        whole["until"] = until.strftime("%Y-%m-%dT%H:%M:%SZ")
    return whole


# fmt: off


class RuleSchema(Frozen):
    value_class = RuleSettings
    scope = ScopeField(required=True, metadata=doc("as of a limit"))
    models = Texts(required=True, validate=_are_patterns, metadata=doc("the models that those in the scope may use; who is in several scopes may use those of all"))
    clients = Texts(load_default=(), metadata=doc("the clients that it is about; none: all"))


class LimitsSchema(Frozen):
    value_class = LimitsSettings
    on_database_down = Text(load_default="allow", validate=one_of("allow", "refuse"), metadata=doc("what happens to requests that have limits while the database is away: `allow`, or `refuse` (503)"))
    unpriced = Text(load_default="allow", validate=one_of("allow", "refuse"), metadata=doc("what happens to a model without a price that has a limit in US$: `allow` or `refuse`"))
    notice_url = Text(load_default="", validate=optional_url, metadata=doc("a webhook that hears who has used 75, 95 or 100 % of a limit; signed with `secret_key`"))
    contact = Text(load_default="", metadata=doc("whom a refusal says to ask"))
