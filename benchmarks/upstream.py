"""A scripted AI provider that takes little CPU time: its responses are prebuilt bytes.

The request's header `X-Bench` selects the response: `json`, `burst`, or `paced EVENTS PAUSE_MS ID`.
`GET /left/ID` returns when (CLOCK_MONOTONIC, in ns) the client of the paced stream ID disconnected, 0 if it
did not. `/mcp` is an MCP server.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time

from . import tool_server

MODEL = "claude-sonnet-4-5-20250929"
BURST_EVENTS = 200
_TEXT = "The quick brown fox jumps over the lazy dog, and the dog sleeps on. "
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_BENCH = re.compile(rb"\r\nx-bench: *([^\r]+)", re.IGNORECASE)
_USAGE = {
    "input_tokens": 412,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 2048,
    "output_tokens": 1,
}
_MESSAGE = {"id": "msg_01BenchBenchBenchBench", "type": "message", "role": "assistant", "model": MODEL}
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Request-Id: req_011BenchBenchBench\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_LAST_CHUNK = b"0\r\n\r\n"


def _event(name: str, **fields: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **fields}, separators=(',', ':'))}\n\n".encode()


def _chunk(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)


def _delta(text: str) -> bytes:
    return _chunk(_event("content_block_delta", index=0, delta={"type": "text_delta", "text": text}))


def _json_response(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Request-Id: req_011BenchBenchBench\r\n\r\n" + body


_OPENING = _chunk(
    _event("message_start", message={**_MESSAGE, "content": [], "stop_reason": None, "usage": _USAGE})
) + _chunk(_event("content_block_start", index=0, content_block={"type": "text", "text": ""}))
_CLOSING = (
    _chunk(_event("content_block_stop", index=0))
    + _chunk(_event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 231}))
    + _chunk(_event("message_stop"))
    + _LAST_CHUNK
)
BURST = _STREAM_HEAD + _OPENING + _delta(" over the lazy dog") * BURST_EVENTS + _CLOSING
JSON = _json_response(
    json.dumps(
        {
            **_MESSAGE,
            "content": [{"type": "text", "text": _TEXT * 25}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {**_USAGE, "output_tokens": 231},
        }
    ).encode()
)
_DISCONNECTED_AT: dict[bytes, int] = {}


class Session(asyncio.Protocol):
    """One connection: requests one after the other, one paced stream at a time."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._data = b""
        self._stream: Paced | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, rest = self._data.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        size = int(length[1]) if length else 0
        if end and len(rest) >= size:
            self._data = rest[size:]
            self._respond(head, rest[:size])

    def _respond(self, head: bytes, body: bytes) -> None:
        match = _BENCH.search(head)
        kind, *arguments = match[1].split() if match else [b""]
        if kind == b"json":
            self.transport.write(JSON)
        elif kind == b"burst":
            self.transport.write(BURST)
        elif kind == b"paced":
            self._stream = Paced(self.transport, int(arguments[0]), int(arguments[1]) / 1000, arguments[2])
        elif head.split()[1] == b"/mcp":
            self.transport.write(tool_server.respond(head, body))
        else:
            disconnected_at = _DISCONNECTED_AT.get(head.split()[1].rpartition(b"/")[2], 0)
            self.transport.write(_json_response(b"%d" % disconnected_at))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._stream is not None:
            self._stream.stop()


class Paced:
    """A stream with an event every `pause` seconds, each stamped with the time at which it was sent."""

    def __init__(self, transport: asyncio.Transport, events: int, pause: float, id: bytes) -> None:
        self._transport, self._events, self._pause, self._id = transport, events, pause, id
        self._loop = asyncio.get_running_loop()
        self._start, self._sent = self._loop.time(), 0
        transport.write(_STREAM_HEAD + _OPENING)
        self._schedule()

    def _schedule(self) -> None:
        at = self._start + (self._sent + 1) * self._pause
        self._handle = self._loop.call_at(at, self._send)

    def _send(self) -> None:
        self._sent += 1
        self._transport.write(_delta(f"t={time.monotonic_ns()};"))
        if self._sent < self._events:
            self._schedule()
        else:
            self._transport.write(_CLOSING)

    def stop(self) -> None:
        """Stops sending, and notes when the client disconnected, if it did so before the end."""
        if self._sent < self._events:
            self._handle.cancel()
            _DISCONNECTED_AT[self._id] = time.monotonic_ns()


async def serve(port: int) -> None:
    """Serves until the process is stopped."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Session, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
