"""Anthropic's messages: blocks, and messages as JSON or as the events of a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.support.upstream import Step, event_stream, http_response

Block = dict[str, Any]
MODEL = "claude-test-1"  # made up: no list of models that end will ever hold it
PRICES = {MODEL: {"input": 5.0, "output": 25.0}}  # nor has it others' prices, which change by the day
_SIZE = 7


def text(text: str) -> Block:
    return {"type": "text", "text": text}


def thought(text: str, signature: str) -> Block:
    return {"type": "thinking", "thinking": text, "signature": signature}


def use(id: str, name: str, **input: object) -> Block:
    return {"type": "tool_use", "id": id, "name": name, "input": input}


def message(id: str, *content: Block, stop: str = "end_turn", **usage: object) -> dict[str, Any]:
    """A message of 10 input and 5 output tokens by default."""
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


def whole(message: dict[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=False).encode()


def stream(message: dict[str, Any]) -> bytes:
    return b"".join(map(_event, _events(message)))


def steps(message: dict[str, Any], streaming: bool, size: int = 0, *headers: str) -> list[Step]:
    """The upstream's response; a stream comes in pieces of `size` bytes (0: one)."""
    if streaming:
        data = stream(message)
        return event_stream(data, size or len(data), *headers)
    return [http_response(200, whole(message), "Content-Type: application/json", *headers)]


def _event(members: dict[str, Any]) -> bytes:
    data = json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()
    return b"event: " + members["type"].encode() + b"\ndata: " + data + b"\n\n"


def _events(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    usage = {**message["usage"], "output_tokens": 1}
    usage.pop("iterations", None)
    begun = {**message, "content": [], "stop_reason": None, "usage": usage}
    yield {"type": "message_start", "message": begun}
    for index, block in enumerate(message["content"]):
        start, deltas = _split_block(block)
        yield {"type": "content_block_start", "index": index, "content_block": start}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    last = ("output_tokens", "iterations")
    counts = {name: count for name, count in message["usage"].items() if name in last}
    yield {"type": "message_delta", "delta": delta, "usage": counts}
    yield {"type": "message_stop"}


def _split_block(block: Block) -> tuple[Block, list[Block]]:
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


def _pieces(text: str) -> list[str]:
    return [text[start : start + _SIZE] for start in range(0, len(text), _SIZE)]
