"""Anthropic's answers, made of the message that they carry: as JSON, or as the events of a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.support.upstream import Step, answer, streamed

Block = dict[str, Any]
MODEL = "claude-test-1"  # made up: no list of models that end will ever hold it
PRICES = {MODEL: {"input": 5.0, "output": 25.0}}  # nor has it others' prices, which change by the day
_SIZE = 7


def text(said: str) -> Block:
    return {"type": "text", "text": said}


def thought(said: str, signature: str) -> Block:
    return {"type": "thinking", "thinking": said, "signature": signature}


def use(id: str, name: str, **input: object) -> Block:
    return {"type": "tool_use", "id": id, "name": name, "input": input}


def message(id: str, *content: Block, stop: str = "end_turn", **usage: object) -> dict[str, Any]:
    """A message of 10 input and 5 output tokens, unless told otherwise."""
    return {
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": list(content),
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 5, **usage},
    }


def whole(found: dict[str, Any]) -> bytes:
    return json.dumps(found, ensure_ascii=False).encode()


def stream(found: dict[str, Any]) -> bytes:
    return b"".join(_event(one) for one in _events(found))


def step(found: dict[str, Any], streaming: bool, size: int = 0, *headers: str) -> list[Step]:
    """The upstream's answer; a stream in pieces of `size` bytes, whole by default."""
    if streaming:
        data = stream(found)
        return streamed(data, size or len(data), *headers)
    return [answer(200, whole(found), "Content-Type: application/json", *headers)]


def _event(one: dict[str, Any]) -> bytes:
    data = json.dumps(one, ensure_ascii=False, separators=(",", ":")).encode()
    return b"event: " + one["type"].encode() + b"\ndata: " + data + b"\n\n"


def _events(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    usage = {**found["usage"], "output_tokens": 1}
    begun = {**found, "content": [], "stop_reason": None, "usage": usage}
    yield {"type": "message_start", "message": begun}
    for index, block in enumerate(found["content"]):
        start, deltas = _taken_apart(block)
        yield {"type": "content_block_start", "index": index, "content_block": start}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    told = {"stop_reason": found["stop_reason"], "stop_sequence": None}
    counts = {"output_tokens": found["usage"]["output_tokens"]}
    yield {"type": "message_delta", "delta": told, "usage": counts}
    yield {"type": "message_stop"}


def _taken_apart(block: Block) -> tuple[Block, list[Block]]:
    if block["type"] == "text":
        pieces = [{"type": "text_delta", "text": piece} for piece in _pieces(block["text"])]
        return {**block, "text": ""}, pieces
    if block["type"] == "thinking":
        pieces = [{"type": "thinking_delta", "thinking": piece} for piece in _pieces(block["thinking"])]
        signed = {"type": "signature_delta", "signature": block["signature"]}
        return {**block, "thinking": "", "signature": ""}, [*pieces, signed]
    if block["type"] == "tool_use":
        pieces = ["", *_pieces(json.dumps(block["input"]))]
        return {**block, "input": {}}, [
            {"type": "input_json_delta", "partial_json": piece} for piece in pieces
        ]
    return block, []


def _pieces(said: str) -> list[str]:
    return [said[place : place + _SIZE] for place in range(0, len(said), _SIZE)]
