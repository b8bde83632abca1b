"""OpenAI's responses: items, and responses as JSON or as a stream of events."""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]
USAGE: Json = {
    "input_tokens": 20,
    "input_tokens_details": {"cached_tokens": 5},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 27,
}


def thought(id: str, *texts: str, encrypted: str = "") -> Json:
    summary = [{"type": "summary_text", "text": text} for text in texts]
    members = {"encrypted_content": encrypted} if encrypted else {}
    return {"id": id, "type": "reasoning", "summary": summary, **members}


def text(id: str, *texts: str, **members: object) -> Json:
    """A message with a part for each text."""
    parts = [{"type": "output_text", "annotations": [], "logprobs": [], "text": text} for text in texts]
    return {
        "id": id,
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": parts,
        **members,
    }


def call(id: str, name: str, arguments: str = "{}") -> Json:
    return {
        "id": f"fc_{id}",
        "type": "function_call",
        "status": "completed",
        "arguments": arguments,
        "call_id": f"call_{id}",
        "name": name,
    }


def response(id: str, *items: Json, usage: Json | None = USAGE, **changes: object) -> Json:
    """A response as a JSON answer, or the last event of a stream, holds it."""
    defaults: Json = {
        "id": id,
        "object": "response",
        "created_at": 1768644072,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": "gpt-5.2-2025-12-11",
        "output": list(items),
        "parallel_tool_calls": False,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": usage,
    }
    return {**defaults, **changes}


def events(response: Json) -> list[Json]:
    """The events of a whole stream; the deltas of each item come before it is done."""
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    events: list[Json] = [
        {"type": f"response.{name}", "response": begun} for name in ("created", "in_progress")
    ]
    for index, item in enumerate(response["output"]):
        events += [{**event, "output_index": index} for event in _item_events(item)]
    events.append({"type": f"response.{response['status']}", "response": response})
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def _item_events(item: Json) -> list[Json]:
    key = next((key for key in ("content", "summary", "arguments", "input") if key in item), "")
    empty = {**item, "status": "in_progress", **({key: type(item[key])()} if key else {})}
    inner = _INNER_EVENTS.get(item["type"], lambda item: [])(item)
    inner = [{**event, "item_id": item["id"]} for event in inner]
    added, done = "response.output_item.added", "response.output_item.done"
    return [{"type": added, "item": empty}, *inner, {"type": done, "item": item}]


def _message_events(item: Json) -> list[Json]:
    events = []
    for index, part in enumerate(item["content"]):
        inner = [{"type": "response.content_part.added", "part": {**part, "text": ""}}]
        words = part["text"].split(" ")
        pieces = [words[0], *(f" {word}" for word in words[1:])]
        inner += [{"type": "response.output_text.delta", "delta": piece, "logprobs": []} for piece in pieces]
        inner += [
            {"type": "response.output_text.done", "text": part["text"], "logprobs": []},
            {"type": "response.content_part.done", "part": part},
        ]
        events += [{**event, "content_index": index} for event in inner]
    return events


def _thought_events(item: Json) -> list[Json]:
    events = []
    for index, part in enumerate(item["summary"]):
        inner = [
            {"type": "response.reasoning_summary_part.added", "part": {**part, "text": ""}},
            {"type": "response.reasoning_summary_text.delta", "delta": part["text"]},
            {"type": "response.reasoning_summary_text.done", "text": part["text"]},
            {"type": "response.reasoning_summary_part.done", "part": part},
        ]
        events += [{**event, "summary_index": index} for event in inner]
    return events


def _call_events(item: Json) -> list[Json]:
    kind = "response.function_call_arguments"
    done = {"type": f"{kind}.done", "arguments": item["arguments"], "name": item["name"]}
    return [{"type": f"{kind}.delta", "delta": item["arguments"]}, done]


_INNER_EVENTS = {"message": _message_events, "reasoning": _thought_events, "function_call": _call_events}


def event(members: Json) -> bytes:
    return f"event: {members['type']}\ndata: {dumps(members).decode()}\n\n".encode()


def dumps(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def stream(response: Json) -> bytes:
    return b"".join(map(event, events(response)))
