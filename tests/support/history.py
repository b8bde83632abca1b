"""Interceptions of the past, recorded as events."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from aibridge_flask.model import Usage, new_id
from aibridge_flask.records.events import Ended, ModelThought, Prompt, Started, TokenUsage, ToolUsage
from aibridge_flask.records.recorder import Recorder

MODEL = "claude-sonnet-4-5"
USAGE = Usage(10, 20, 30, 40)


class History:
    """Records what actors did at times of the past."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def add(
        self,
        actor: str,
        at: datetime,
        *,
        prompt: str = "",
        usage: Usage = USAGE,
        tools: tuple[tuple[str, str], ...] = (),
        thought: str = "",
        error_type: str = "",
        seconds: float = 2.0,
        first_byte: float = 0.3,
        is_running: bool = False,
        id: str = "",
        **members: Any,
    ) -> str:
        """Records one interception and returns its id. `tools` are pairs of a tool's name and its call's id."""
        id = id or new_id()
        defaults = {
            "provider": "anthropic",
            "provider_name": "anthropic",
            "model": MODEL,
            "client": "Claude Code",
        }
        started = Started(id, actor, at, **{**defaults, "credential_kind": "centralized", **members})
        self._recorder.begin(started, *([Prompt(id, prompt, at)] if prompt else []))
        for position, (tool, call) in enumerate(tools):
            error = "it failed" if call.startswith("failed") else ""
            self._recorder.record(
                ToolUsage(id, 0, position, "msg", call, "", tool, "{}", at, invocation_error=error)
            )
        if thought:
            self._recorder.record(ModelThought(id, 0, 0, thought, "thinking", at))
        if not is_running:
            self._end(id, started, usage, at, error_type, seconds, first_byte)
        return id

    def _end(
        self,
        id: str,
        started: Started,
        usage: Usage,
        at: datetime,
        error: str,
        seconds: float,
        first_byte: float,
    ) -> None:
        used = TokenUsage(id, 0, "msg", started.model, usage, at)
        self._recorder.record(used)
        self._recorder.end(
            Ended(
                id,
                at + timedelta(seconds=seconds),
                status_code=200,
                first_byte_at=at + timedelta(seconds=first_byte),
                error_type=error,
                usage=usage,
                usages=(used,),
                attempts=1,
                first_byte_ms=first_byte * 1000,
                duration_ms=seconds * 1000,
            )
        )
