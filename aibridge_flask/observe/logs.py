"""What is logged: a line for each request, and the records as JSON lines for a SIEM.

A line's message is text of words and `key=value`; its facts also stand in the log record's `fields`,
from which the JSON format is made. What clients say is quoted, so that a line stays one.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec
from msgspec.structs import asdict

from ..config.settings import LogSettings
from ..hooks import Hooks, PassthroughServed, RequestRejected
from ..records.events import (
    EventRecorded,
    InterceptionEnded,
    InterceptionStarted,
    ModelThought,
    Prompt,
    TokenUsage,
    ToolUsage,
)

REQUESTS, RECORDS = logging.getLogger("aibridge.requests"), logging.getLogger("aibridge.siem")
_PLAIN = re.compile(r"[A-Za-z0-9_.:/@+\-]+")
_NUMBERS = (int, float)  # a truth is none: its type is another
_EVENTS = {
    Prompt: "prompt_usage",
    TokenUsage: "token_usage",
    ToolUsage: "tool_usage",
    ModelThought: "model_thought",
}


def subscribe(hooks: Hooks, settings: LogSettings) -> None:
    """From now on requests are logged, and records too if the settings say so."""
    hooks.on(InterceptionEnded, _interception)
    hooks.on(PassthroughServed, _passed)
    hooks.on(RequestRejected, _refused)
    if settings.records:
        hooks.on(InterceptionStarted, lambda value: _record("interception_start", value.started))
        hooks.on(EventRecorded, lambda value: _record(_EVENTS.get(type(value.event), ""), value.event))
        hooks.on(InterceptionEnded, lambda value: _record("interception_end", value.ended))


def configure(settings: LogSettings) -> None:
    """For a server of our own: everything goes to standard error, unless somebody has set up
    logging before."""
    own = logging.getLogger("aibridge")
    own.setLevel(settings.level.upper())
    RECORDS.setLevel(logging.INFO)
    if logging.getLogger().handlers or own.handlers:
        return
    own.addHandler(_handler(_Json() if settings.format == "json" else _Plain()))
    RECORDS.addHandler(_handler(logging.Formatter("%(message)s")))
    own.propagate = RECORDS.propagate = False


def _handler(formatter: logging.Formatter) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    return handler


class _Plain(logging.Formatter):
    """As gunicorn's own lines look; what a traceback says stays below its line."""

    def __init__(self) -> None:
        super().__init__("[%(asctime)s] [%(process)d] [%(levelname)s] %(message)s", "%Y-%m-%d %H:%M:%S %z")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "logger": record.name,
            **(getattr(record, "fields", None) or {"message": record.getMessage()}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _interception(value: InterceptionEnded) -> None:
    if not REQUESTS.isEnabledFor(logging.INFO):
        return
    started, ended = value.started, value.ended
    _line(
        "interception",
        {
            "id": started.id,
            "actor": started.initiator_id,
            "client": started.client,
            "provider": started.provider_name,
            "route": started.route,
            "model": started.model,
            "stream": started.streaming,
            "status": ended.status_code,
            "error": ended.error_type,
            "input_tokens": ended.usage.input_tokens,
            "output_tokens": ended.usage.output_tokens,
            "ms": _ms((ended.ended_at - started.started_at).total_seconds()),
            "first_byte_ms": _ms(value.first_byte),
            "overhead_ms": _ms(value.overhead),
        },
    )


def _passed(value: PassthroughServed) -> None:
    _line(
        "passthrough",
        {
            "actor": value.actor,
            "provider": value.provider,
            "method": value.method,
            "route": value.route,
            "status": value.status,
        },
    )


def _refused(value: RequestRejected) -> None:
    facts = {"id": value.id, "provider": value.provider, "method": value.method, "path": value.path}
    _line("refused", {**facts, "status": value.status, "error": value.code})


def _line(kind: str, facts: Mapping[str, object]) -> None:
    if REQUESTS.isEnabledFor(logging.INFO):
        known = {name: fact for name, fact in facts.items() if fact != ""} if "" in facts.values() else facts
        words = [fact if type(fact) in _NUMBERS else _word(fact) for fact in known.values()]
        text = _template(tuple(known)) % tuple(words)
        # as `info` makes it, without the search for who called
        record = logging.LogRecord(REQUESTS.name, logging.INFO, "", 0, "%s %s", (kind, text), None)
        record.fields = {"event": kind, **known}
        REQUESTS.handle(record)


@lru_cache
def _template(names: tuple[str, ...]) -> str:
    """
    >>> _template(("id", "status"))
    'id=%s status=%s'
    """
    return " ".join([f"{name}=%s" for name in names])


def _word(fact: object) -> str:
    """
    >>> _word("claude-x"), _word(True), _word('a "b"')
    ('claude-x', 'true', '"a \\\\"b\\\\""')
    """
    if isinstance(fact, str):
        return fact if _PLAIN.fullmatch(fact) else json.dumps(fact)
    return str(fact).lower()


def _record(name: str, event: msgspec.Struct) -> None:
    if name:
        facts = msgspec.to_builtins(asdict(event), enc_hook=dict, builtin_types=(datetime,))
        told = {key: _time(fact) if isinstance(fact, datetime) else fact for key, fact in facts.items()}
        RECORDS.info("%s", json.dumps({"event": name, **told}))


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
