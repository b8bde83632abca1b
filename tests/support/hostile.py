"""Interceptions whose every text tries to be more than a text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from aibridge_flask.model import Usage, new_id
from aibridge_flask.records import frames
from aibridge_flask.records.events import Ended, ModelThought, Prompt, Started, TokenUsage, ToolUsage
from aibridge_flask.records.log import segment_name

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><svg onload=alert(3)>"
BIDI = "\u202egnp.exe\u2066 \x1b[31mred\x07\u200e"
FOREIGN = '<link rel=stylesheet href="//evil.example/x.css"><iframe src="https://evil.example">'
TEMPLATE = "{{ 7 * 7 }}{% raw %}%s %(a)s {0}"
TEXTS = (SCRIPT, BIDI, FOREIGN, TEMPLATE, "javascript:alert(1)", "-" * 5000, "\u0629" * 300)
SESSION = f"s/<b>{SCRIPT[:60]}"
PERSON = f"eve{SCRIPT}"


def write_log(folder: Path) -> None:
    """Writes them to a log as that of a dead worker."""
    log = folder / new_id()
    log.mkdir(mode=0o700)
    begin = datetime.now(UTC) - timedelta(minutes=20)
    with (log / segment_name(0)).open("xb") as file:
        for number, text in enumerate(TEXTS):
            file.write(frames.encode(_events(text, begin + timedelta(seconds=number)), begin.timestamp()))


def _events(text: str, at: datetime) -> list[object]:
    id, short = new_id(), text[:200]
    started = Started(
        id, PERSON, at, {"username": PERSON}, "anthropic", "anthropic", short, short, SESSION,
        user_agent=text, credential_kind="centralized", credential_hint=short, agent_id=short, kind="main",
        groups=(short,),
    )  # fmt: skip
    usage = TokenUsage(id, 0, "msg", short, Usage(1, 2, 3, 4), at)
    tool = ToolUsage(id, 0, 0, "msg", f"call_{id}", "", short, text, at, True, "javascript:alert(4)", text)
    end = Ended(
        id, at + timedelta(seconds=1), 200, at, "server_error", text, usage=usage.usage, usages=(usage,)
    )
    return [started, Prompt(id, text, at), ModelThought(id, 0, 0, text, "thinking", at), tool, usage, end]
