"""Answers of OpenAI Responses, as an upstream would say them: as a stream of events, or as one JSON."""

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


def thought(id: str, *said: str, encrypted: str = "") -> Json:
    summary = [{"type": "summary_text", "text": one} for one in said]
    more = {"encrypted_content": encrypted} if encrypted else {}
    return {"id": id, "type": "reasoning", "summary": summary, **more}


def text(id: str, *said: str, **more: object) -> Json:
    parts = [{"type": "output_text", "annotations": [], "logprobs": [], "text": one} for one in said]
    return {
        "id": id,
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": parts,
        **more,
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
    """A response as its last event, or a JSON answer, holds it."""
    whole: Json = {
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
    return {**whole, **changes}


def events(said: Json) -> list[Json]:
    """The events of a whole stream, in which each item is told before it is done."""
    begun = {**said, "status": "in_progress", "output": [], "usage": None}
    told: list[Json] = [{"type": f"response.{one}", "response": begun} for one in ("created", "in_progress")]
    for index, item in enumerate(said["output"]):
        told += [{**event, "output_index": index} for event in _item_events(item)]
    told.append({"type": f"response.{said['status']}", "response": said})
    return [{**event, "sequence_number": number} for number, event in enumerate(told)]


def _item_events(item: Json) -> list[Json]:
    key = next((key for key in ("content", "summary", "arguments", "input") if key in item), "")
    empty = {**item, "status": "in_progress", **({key: type(item[key])()} if key else {})}
    inner = _INNER.get(item["type"], lambda item: [])(item)
    inner = [{**event, "item_id": item["id"]} for event in inner]
    added, done = "response.output_item.added", "response.output_item.done"
    return [{"type": added, "item": empty}, *inner, {"type": done, "item": item}]


def _message_events(item: Json) -> list[Json]:
    told = []
    for index, part in enumerate(item["content"]):
        inner = [{"type": "response.content_part.added", "part": {**part, "text": ""}}]
        words = part["text"].split(" ")
        pieces = [words[0], *(f" {word}" for word in words[1:])]
        inner += [{"type": "response.output_text.delta", "delta": piece, "logprobs": []} for piece in pieces]
        inner += [
            {"type": "response.output_text.done", "text": part["text"], "logprobs": []},
            {"type": "response.content_part.done", "part": part},
        ]
        told += [{**event, "content_index": index} for event in inner]
    return told


def _thought_events(item: Json) -> list[Json]:
    told = []
    for index, part in enumerate(item["summary"]):
        inner = [
            {"type": "response.reasoning_summary_part.added", "part": {**part, "text": ""}},
            {"type": "response.reasoning_summary_text.delta", "delta": part["text"]},
            {"type": "response.reasoning_summary_text.done", "text": part["text"]},
            {"type": "response.reasoning_summary_part.done", "part": part},
        ]
        told += [{**event, "summary_index": index} for event in inner]
    return told


def _call_events(item: Json) -> list[Json]:
    kind = "response.function_call_arguments"
    done = {"type": f"{kind}.done", "arguments": item["arguments"], "name": item["name"]}
    return [{"type": f"{kind}.delta", "delta": item["arguments"]}, done]


_INNER = {"message": _message_events, "reasoning": _thought_events, "function_call": _call_events}


def event(found: Json) -> bytes:
    return f"event: {found['type']}\ndata: {dumps(found).decode()}\n\n".encode()


def dumps(found: object) -> bytes:
    return json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode()


def stream(said: Json) -> bytes:
    return b"".join(map(event, events(said)))


def told(stream: bytes) -> list[Json]:
    """The events of a stream that came out, read plainly."""
    found = []
    for one in stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n\n"):
        data = [line[5:] for line in one.split(b"\n") if line.startswith(b"data:")]
        if data and data != [b" [DONE]"]:
            found.append(json.loads(b"\n".join(data)))
    return found
