"""Logs: a line for each request, and the records as JSON lines for a SIEM.

A line is plain text with `key=value` pairs. The log record's `fields` hold the same facts, for the JSON
format. Values from clients are quoted, so that a line stays one line.
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
_NUMBERS = (int, float)  # compared by type: a bool is not a number here
_EVENTS = {
    Prompt: "prompt_usage",
    TokenUsage: "token_usage",
    ToolUsage: "tool_usage",
    ModelThought: "model_thought",
}


def subscribe(hooks: Hooks, settings: LogSettings) -> None:
    """Adds listeners that log requests, and records if the settings say so."""
    hooks.on(InterceptionEnded, _log_interception)
    hooks.on(PassthroughServed, _log_passthrough)
    hooks.on(RequestRejected, _log_rejected)
    if settings.records:
        hooks.on(InterceptionStarted, lambda value: _log_record("interception_start", value.started))
        hooks.on(EventRecorded, lambda value: _log_record(_EVENTS.get(type(value.event), ""), value.event))
        hooks.on(InterceptionEnded, lambda value: _log_record("interception_end", value.ended))


def configure(settings: LogSettings) -> None:
    """Configures logging for the standalone server: to standard error, unless logging is already set up."""
    own = logging.getLogger("aibridge")
    own.setLevel(settings.level.upper())
    RECORDS.setLevel(logging.INFO)
    if logging.getLogger().handlers or own.handlers:
        return
    own.addHandler(_handler(_JsonFormatter() if settings.format == "json" else _PlainFormatter()))
    RECORDS.addHandler(_handler(logging.Formatter("%(message)s")))
    own.propagate = RECORDS.propagate = False


def _handler(formatter: logging.Formatter) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    return handler


class _PlainFormatter(logging.Formatter):
    """The format of gunicorn's lines; a traceback follows its line."""

    def __init__(self) -> None:
        super().__init__("[%(asctime)s] [%(process)d] [%(levelname)s] %(message)s", "%Y-%m-%d %H:%M:%S %z")


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _format_time(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "logger": record.name,
            **(getattr(record, "fields", None) or {"message": record.getMessage()}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _log_interception(value: InterceptionEnded) -> None:
    if not REQUESTS.isEnabledFor(logging.INFO):
        return
    started, ended = value.started, value.ended
    _log_line(
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
            "ms": _milliseconds(value.duration),
            "first_byte_ms": _milliseconds(value.first_byte),
            "overhead_ms": _milliseconds(value.overhead),
        },
    )


def _log_passthrough(value: PassthroughServed) -> None:
    _log_line(
        "passthrough",
        {
            "actor": value.actor,
            "provider": value.provider,
            "method": value.method,
            "route": value.route,
            "status": value.status,
        },
    )


def _log_rejected(value: RequestRejected) -> None:
    facts = {"id": value.id, "provider": value.provider, "method": value.method, "path": value.path}
    _log_line("refused", {**facts, "status": value.status, "error": value.code})


def _log_line(kind: str, facts: Mapping[str, object]) -> None:
    if REQUESTS.isEnabledFor(logging.INFO):
        present = (
            {name: fact for name, fact in facts.items() if fact != ""} if "" in facts.values() else facts
        )
        words = [fact if type(fact) in _NUMBERS else _format_value(fact) for fact in present.values()]
        text = _template(tuple(present)) % tuple(words)
        # as `info` creates it, without the search for the caller
        record = logging.LogRecord(REQUESTS.name, logging.INFO, "", 0, "%s %s", (kind, text), None)
        record.fields = {"event": kind, **present}
        REQUESTS.handle(record)


@lru_cache
def _template(names: tuple[str, ...]) -> str:
    """
    >>> _template(("id", "status"))
    'id=%s status=%s'
    """
    return " ".join([f"{name}=%s" for name in names])


def _format_value(fact: object) -> str:
    """
    >>> _format_value("claude-x"), _format_value(True), _format_value('a "b"')
    ('claude-x', 'true', '"a \\\\"b\\\\""')
    """
    if isinstance(fact, str):
        return fact if _PLAIN.fullmatch(fact) else json.dumps(fact)
    return str(fact).lower()


_TOLD_BEFORE = ("parts", "usages")  # of an end: lines of their own have them


def _log_record(name: str, event: msgspec.Struct) -> None:
    if name:
        members = {key: fact for key, fact in asdict(event).items() if key not in _TOLD_BEFORE}
        facts = msgspec.to_builtins(members, enc_hook=dict, builtin_types=(datetime,))
        values = {
            key: _format_time(fact) if isinstance(fact, datetime) else fact for key, fact in facts.items()
        }
        RECORDS.info("%s", json.dumps({"event": name, **values}))


def _format_time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 2)
