"""OpenAI's chat completions: chunk by chunk, or made of the completion that they carry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.support.upstream import Step, answer, streamed

DONE = b"data: [DONE]\n\n"
_SIZE = 7


def event(**members: object) -> bytes:
    return b"data: " + json.dumps(members, separators=(",", ":")).encode() + b"\n\n"


def chunk(
    id: str, delta: dict[str, object], finish: str | None = None, place: int = 0, **more: object
) -> bytes:
    choice = {"index": place, "delta": delta, "finish_reason": finish}
    return event(id=id, choices=[choice], **more)


def text(id: str, said: str) -> bytes:
    return chunk(id, {"content": said})


def role(id: str) -> bytes:
    return chunk(id, {"role": "assistant", "content": ""})


def piece(index: int | None, name: str, arguments: str = "{}", **more: object) -> dict[str, object]:
    """A whole call; its id is made of its name's end."""
    number = {} if index is None else {"index": index}
    function = {"name": name, "arguments": arguments}
    return {**number, "id": f"call_{name[-4:]}", "type": "function", "function": function, **more}


def call(id: str, index: int | None, name: str, arguments: str = "{}", **more: object) -> bytes:
    return chunk(id, {"tool_calls": [piece(index, name, arguments, **more)]})


def more(id: str, index: int, arguments: str) -> bytes:
    return chunk(id, {"tool_calls": [{"index": index, "function": {"arguments": arguments}}]})


def usage(id: str, taken: int, given: int) -> bytes:
    return event(id=id, choices=[], usage=counted(taken, given))


def counted(taken: int, given: int) -> dict[str, object]:
    tokens = {"prompt_tokens": taken, "completion_tokens": given, "total_tokens": taken + given}
    return {**tokens, "prompt_tokens_details": {"cached_tokens": 1}}


def summed(taken: int, given: int, answers: int) -> dict[str, object]:
    return {**counted(taken, given), "prompt_tokens_details": {"cached_tokens": answers}}


def message(content: str | None, *calls: tuple[str, str, str], **more: object) -> dict[str, object]:
    listed = [
        {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
        for id, name, arguments in calls
    ]
    return {"role": "assistant", "content": content, **({"tool_calls": listed} if calls else {}), **more}


def completion(
    id: str, *messages: dict[str, object], finish: str = "", taken: int = 9, given: int = 4
) -> dict[str, Any]:
    """It ends with calls where the last message has some, unless told otherwise."""
    reason = finish or ("tool_calls" if "tool_calls" in messages[-1] else "stop")
    choices = [
        {"index": place, "message": one, "finish_reason": reason} for place, one in enumerate(messages)
    ]
    about = {"id": id, "object": "chat.completion", "created": 1, "model": "gpt-5"}
    return {**about, "choices": choices, "usage": counted(taken, given)}


def whole(found: dict[str, Any]) -> bytes:
    return json.dumps(found, indent=1).encode()


def stream(found: dict[str, Any], includes_usage: bool = True) -> bytes:
    about = {**found, "object": "chat.completion.chunk"}
    chunks = [event(**{**about, "choices": [one], "usage": None}) for one in _choices(found)]
    counts = [event(**{**about, "choices": []})] if includes_usage else []
    return b"".join([*chunks, *counts, DONE])


def step(found: dict[str, Any], streaming: bool, size: int = 0, *headers: str) -> list[Step]:
    """The upstream's answer; a stream in pieces of `size` bytes, whole by default."""
    return streamed(stream(found), size, *headers) if streaming else [answer(200, whole(found), *headers)]


def _choices(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for choice in found["choices"]:
        for delta in _deltas(choice["message"]):
            yield {"index": choice["index"], "delta": delta, "finish_reason": None}
        yield {"index": choice["index"], "delta": {}, "finish_reason": choice["finish_reason"]}


def _deltas(said: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": ""}
    for name, text in said.items():
        if name not in ("role", "tool_calls"):
            yield from ({name: part} for part in _parts(text or ""))
    for index, one in enumerate(said.get("tool_calls", [])):
        function = one["function"]
        yield {"tool_calls": [{"index": index, **one, "function": {**function, "arguments": ""}}]}
        for part in _parts(function["arguments"]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": part}}]}


def _parts(said: str) -> list[str]:
    return [said[place : place + _SIZE] for place in range(0, len(said), _SIZE)]
