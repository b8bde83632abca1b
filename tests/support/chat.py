"""OpenAI's chat completions: single chunks, and completions as JSON or as a stream of chunks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.support.upstream import Step, event_stream, http_response

DONE = b"data: [DONE]\n\n"
_PIECE_LENGTH = 7


def event(**members: object) -> bytes:
    return b"data: " + json.dumps(members, separators=(",", ":")).encode() + b"\n\n"


def chunk(
    id: str, delta: dict[str, object], finish: str | None = None, index: int = 0, **members: object
) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return event(id=id, choices=[choice], **members)


def text(id: str, content: str) -> bytes:
    return chunk(id, {"content": content})


def role(id: str) -> bytes:
    return chunk(id, {"role": "assistant", "content": ""})


def tool_call(index: int | None, name: str, arguments: str = "{}", **members: object) -> dict[str, object]:
    """A whole call, or the first piece of one; its id holds the end of its name."""
    position = {} if index is None else {"index": index}
    function = {"name": name, "arguments": arguments}
    return {**position, "id": f"call_{name[-4:]}", "type": "function", "function": function, **members}


def call(id: str, index: int | None, name: str, arguments: str = "{}", **members: object) -> bytes:
    return chunk(id, {"tool_calls": [tool_call(index, name, arguments, **members)]})


def more_arguments(id: str, index: int, arguments: str) -> bytes:
    return chunk(id, {"tool_calls": [{"index": index, "function": {"arguments": arguments}}]})


def usage(id: str, input_tokens: int, output_tokens: int) -> bytes:
    return event(id=id, choices=[], usage=token_counts(input_tokens, output_tokens))


def token_counts(input_tokens: int, output_tokens: int, answers: int = 1) -> dict[str, object]:
    """The usage of so many answers together; one input token of each was cached."""
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
        "prompt_tokens_details": {"cached_tokens": answers},
    }


def message(content: str | None, *calls: tuple[str, str, str], **members: object) -> dict[str, object]:
    """The message of a choice; a call is its id, name and arguments."""
    tool_calls = [
        {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
        for id, name, arguments in calls
    ]
    return {
        "role": "assistant",
        "content": content,
        **({"tool_calls": tool_calls} if calls else {}),
        **members,
    }


def completion(
    id: str, *messages: dict[str, object], finish: str = "", input_tokens: int = 9, output_tokens: int = 4
) -> dict[str, Any]:
    """A completion with a choice for each message. `finish` follows from the last message if empty."""
    reason = finish or ("tool_calls" if "tool_calls" in messages[-1] else "stop")
    choices = [
        {"index": index, "message": message, "finish_reason": reason}
        for index, message in enumerate(messages)
    ]
    head = {"id": id, "object": "chat.completion", "created": 1, "model": "gpt-5"}
    return {**head, "choices": choices, "usage": token_counts(input_tokens, output_tokens)}


def whole(completion: dict[str, Any]) -> bytes:
    return json.dumps(completion, indent=1).encode()


def stream(completion: dict[str, Any]) -> bytes:
    head = {**completion, "object": "chat.completion.chunk"}
    chunks = [event(**{**head, "choices": [choice], "usage": None}) for choice in _choices(completion)]
    return b"".join([*chunks, event(**{**head, "choices": []}), DONE])


def steps(completion: dict[str, Any], streaming: bool, size: int = 0, *headers: str) -> list[Step]:
    """The upstream's response; a stream comes in pieces of `size` bytes (0: one)."""
    if streaming:
        return event_stream(stream(completion), size, *headers)
    return [http_response(200, whole(completion), *headers)]


def _choices(completion: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The choices of the chunks."""
    for choice in completion["choices"]:
        for delta in _deltas(choice["message"]):
            yield {"index": choice["index"], "delta": delta, "finish_reason": None}
        yield {"index": choice["index"], "delta": {}, "finish_reason": choice["finish_reason"]}


def _deltas(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": ""}
    for name, text in message.items():
        if name not in ("role", "tool_calls"):
            yield from ({name: piece} for piece in _split(text or ""))
    for index, call in enumerate(message.get("tool_calls", [])):
        function = call["function"]
        yield {"tool_calls": [{"index": index, **call, "function": {**function, "arguments": ""}}]}
        for piece in _split(function["arguments"]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _split(text: str) -> list[str]:
    return [text[start : start + _PIECE_LENGTH] for start in range(0, len(text), _PIECE_LENGTH)]
