"""The scripted providers: one HTTP server on loopback that answers as Anthropic, OpenAI and an MCP server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import urlsplit

from ...model import new_id
from . import mcp
from .answers import API, Answer, Chat, Messages, Responses, text_for
from .people import CLIENTS
from .texts import INPUTS, THOUGHTS

TOOL_HEADER, FAILURE_HEADER = "X-Demo-Tool", "X-Demo-Failure"
"""Of the demonstration's own traffic: the tool that the answer calls, the status that it has."""

FIRST_KEY, SECOND_KEY, OPENAI_KEY = (
    "sk-ant-demo-first-key-01",
    "sk-ant-demo-second-key-2",
    "sk-demo-openai-key-0001",
)
_BRIDGED: Mapping[str, API] = {
    "/anthropic/v1/messages": Messages,
    "/openai/v1/chat/completions": Chat,
    "/openai/v1/responses": Responses,
}
_PAUSE = 0.01  # seconds between two events
_LIMITED_EVERY, _COOLDOWN = 12, 25  # requests with the first key; seconds
_BYTES_OF_TOKEN = 4
_BESIDE, _REMINDER = ("system", "developer"), "<system-reminder>"  # what clients add to the user's words
_numbers = count(1)


class ScriptedProviders:
    """Serves from its start to `close`."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Prints nothing."""

    def do_GET(self) -> None:
        if self._path.endswith("/v1/models"):
            self._json(_models(self._path.split("/")[1]))
        else:
            self._json({"error": {"type": "not_found_error", "message": "not in the demonstration"}}, 404)

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            body = json.loads(raw)
        except ValueError:
            return self._json({"error": {"type": "invalid_request_error", "message": "not JSON"}}, 400)
        if self._path == "/mcp":
            return self._mcp(body)
        if self._path.endswith("/count_tokens"):
            return self._json({"input_tokens": len(raw) // _BYTES_OF_TOKEN})
        if self._path not in _BRIDGED:
            return self._json({})
        return self._answer(_BRIDGED[self._path], body, len(raw))

    @property
    def _path(self) -> str:
        return urlsplit(self.path).path

    def _answer(self, api: API, body: Any, size: int) -> None:
        status = int(self.headers.get(FAILURE_HEADER, 0))
        if self.headers.get("X-Api-Key") == FIRST_KEY and next(_numbers) % _LIMITED_EVERY == 0:
            status = 429
        if status:
            return self._fail(status)
        answer = _answer(body, size, self.headers.get(TOOL_HEADER, ""))
        if not body.get("stream"):
            return self._json(api.whole(answer))
        return self._stream(api.events(answer))

    def _fail(self, status: int) -> None:
        kinds = {429: "rate_limit_error", 529: "overloaded_error"}
        error = {"type": kinds.get(status, "api_error"), "message": "scripted by the demonstration"}
        headers = {"Retry-After": str(_COOLDOWN)} if status == 429 else {}
        self._json({"type": "error", "error": error}, status, headers)

    def _stream(self, events: Iterator[bytes]) -> None:
        self._head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
        try:
            for event in events:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
                time.sleep(_PAUSE)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:  # the client has gone
            self.close_connection = True

    def _mcp(self, message: Any) -> None:
        answer = mcp.answer_to(message)
        self._json(answer, 200) if answer else self._json({}, 202)

    def _json(self, value: Any, status: int = 200, headers: Mapping[str, str] = {}) -> None:
        data = json.dumps(value).encode()
        self._head(status, {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers})
        self.wfile.write(data)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _answer(body: Mapping[str, Any], size: int, tool: str) -> Answer:
    """Most of a conversation's input is read from the cache, the newest part is written to it."""
    tokens, number = size // _BYTES_OF_TOKEN, next(_numbers)
    is_first = len(body.get("messages") or body.get("input") or ()) <= 1
    cached = 0 if is_first else tokens * 9 // 10
    text = text_for(body, _last_text(body))
    thinks = (body.get("thinking") or {}).get("type") in ("enabled", "adaptive")
    return Answer(
        id=new_id().replace("-", ""),
        model=str(body.get("model", "")),
        text=text,
        tool=tool,
        input=INPUTS[number % len(INPUTS)],
        thought=THOUGHTS[number % len(THOUGHTS)] if thinks else "",
        fresh=10,
        cached=cached,
        written=max(0, tokens - cached - 10),
        output=len(text) // _BYTES_OF_TOKEN,
    )


def _last_text(body: Mapping[str, Any]) -> str:
    """Returns the last text of the user, "" if the last message brings a tool's result."""
    messages = body.get("messages") or body.get("input")
    if isinstance(messages, str):
        return messages
    spoken = [each for each in messages or () if isinstance(each, dict) and each.get("role") not in _BESIDE]
    content = spoken[-1].get("content", "") if spoken and spoken[-1].get("role") == "user" else ""
    if isinstance(content, str):
        return content
    texts = [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return next((text for text in reversed(texts) if not text.startswith(_REMINDER)), "")


def _models(provider: str) -> dict[str, Any]:
    names = {model.name for client in CLIENTS for model in client.models if model.provider == provider}
    kind = {"type": "model"} if provider == "anthropic" else {"object": "model", "owned_by": "demo"}
    data = [
        {"id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z", **kind}
        for name in sorted(names)
    ]
    return {"object": "list", "data": data, "has_more": False}
