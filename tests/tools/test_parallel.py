"""Many different requests at once: each client gets its own answer, and each record is of one request."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.conftest import Start
from tests.support.server import TIMEOUT_SECONDS, Client, Server, wait_until
from tests.support.upstream import (
    LAST_CHUNK,
    ReceivedRequest,
    Step,
    Upstream,
    chunk,
    http_response,
    stream_head,
)

COUNT = 200
ROUTES = ("/anthropic/v1/messages", "/openai/v1/chat/completions", "/openai/v1/responses")


@dataclass(frozen=True)
class Exchange:
    """A request, its answer and its record; every part holds `number`."""

    number: int

    @property
    def route(self) -> str:
        return ROUTES[self.number % 3]

    @property
    def is_streamed(self) -> bool:
        return self.number // 3 % 2 == 0

    @property
    def prompt(self) -> str:
        return f"question {self.number} " + "x" * (1 + self.number * 37 % 5000)

    @property
    def text(self) -> str:
        return f"answer {self.number} " + "y" * (self.number * 91 % 9000)

    @property
    def body(self) -> bytes:
        messages = [{"role": "user", "content": self.prompt}]
        prompt = {"input": messages} if self.route.endswith("responses") else {"messages": messages}
        return json.dumps({"model": "m", "stream": self.is_streamed, **prompt}).encode()

    @property
    def usage(self) -> tuple[int, int]:
        return self.number + 1, 3 * self.number + 1

    def events(self) -> list[bytes]:
        """A streamed answer; the event with the usage is the one before the last."""
        first, second = self.usage
        id, half = f"id-{self.number}", len(self.text) // 2
        if self.route == ROUTES[0]:
            start = {"id": id, "model": "m", "usage": {"input_tokens": first, "output_tokens": 1}}
            return [
                _named("message_start", message=start),
                *(
                    _named("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
                    for text in (self.text[:half], self.text[half:])
                ),
                _named("message_delta", delta={}, usage={"output_tokens": second}),
                _named("message_stop"),
            ]
        if self.route == ROUTES[1]:
            pieces = [
                {"choices": [{"delta": {"content": text}}]} for text in (self.text[:half], self.text[half:])
            ]
            usage = {"choices": [], "usage": {"prompt_tokens": first, "completion_tokens": second}}
            return [
                *(_data({"id": id, "model": "m", **members}) for members in [*pieces, usage]),
                b"data: [DONE]\n\n",
            ]
        response = {"id": id, "model": "m", "usage": {"input_tokens": first, "output_tokens": second}}
        return [
            _named("response.created", response={"id": id, "model": "m"}),
            _named("response.output_text.delta", delta=self.text[:half]),
            _named("response.output_text.delta", delta=self.text[half:]),
            _named("response.completed", response=response),
        ]

    def whole(self) -> bytes:
        first, second = self.usage
        names = (
            ("prompt_tokens", "completion_tokens")
            if "chat" in self.route
            else ("input_tokens", "output_tokens")
        )
        usage = dict(zip(names, (first, second), strict=True))
        return json.dumps(
            {"id": f"id-{self.number}", "model": "m", "usage": usage, "text": self.text}
        ).encode()

    def expected_body(self) -> bytes:
        """What the client must get; the usage of a chat is hidden, as the client does not ask for it."""
        if not self.is_streamed:
            return self.whole()
        hidden = b'"choices": [], "usage"' if self.route == ROUTES[1] else b"\0"
        return b"".join(event for event in self.events() if hidden not in event)


def _data(event: object) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def _named(type: str, **members: object) -> bytes:
    return b"event: " + type.encode() + b"\n" + _data({"type": type, **members})


def answer(received: ReceivedRequest, barrier: threading.Barrier) -> Iterator[Step]:
    """Begins no answer before all requests have come, and ends none before all answers have begun."""
    request = json.loads(received.body)
    messages = request.get("messages") or request["input"]
    exchange = Exchange(int(messages[0]["content"].split()[1]))
    barrier.wait(TIMEOUT_SECONDS)
    if exchange.is_streamed:
        yield stream_head() + chunk(exchange.events()[0])
    barrier.wait(TIMEOUT_SECONDS)
    if exchange.is_streamed:
        yield from map(chunk, exchange.events()[1:])
        yield LAST_CHUNK
    else:
        yield http_response(200, exchange.whole())


class ClientThread(threading.Thread):
    """A client that sends its requests one after the other on one connection."""

    def __init__(self, server: Server, exchanges: list[Exchange]) -> None:
        super().__init__(daemon=True)
        self._client: Client = server.connect()
        self._exchanges = exchanges
        self.results: list[tuple[Exchange, int, tuple[bytes, bool], str]] = []
        self.start()

    def run(self) -> None:
        for exchange in self._exchanges:
            self._client.send("POST", exchange.route, exchange.body)
            status, headers = self._client.head()
            body = self._client.body(headers)
            self.results.append((exchange, status, body, headers["x-aibridge-interception-id"]))


@pytest.mark.parametrize(
    ("kind", "options"), [("gevent", ("--workers=2",)), ("gthread", (f"--threads={COUNT + 8}",))]
)
def test_each_client_gets_its_own_answer_and_record(
    start: Start, upstream: Upstream, kind: str, options: tuple[str, ...]
) -> None:
    server = start(*options, kind=kind, keepalive_interval=60.0)
    barrier = threading.Barrier(COUNT)
    upstream.handler = lambda received: answer(received, barrier)
    clients = [ClientThread(server, [Exchange(number), Exchange(number + COUNT)]) for number in range(COUNT)]
    for client in clients:
        client.join(TIMEOUT_SECONDS * 2)
    results = [result for client in clients for result in client.results]
    assert len(results) == 2 * COUNT
    for exchange, status, body, _ in results:
        assert (status, body) == (200, (exchange.expected_body(), True))
    wait_until(
        lambda: all(record["ended_at"] for record in server.get("/interceptions?limit=1000")["results"])
    )
    records = {record["id"]: record for record in server.get("/interceptions?limit=1000")["results"]}
    assert set(records) == {id for _, _, _, id in results}
    for exchange, _, _, id in results:
        record = records[id]
        (prompt,), (usage,) = record["user_prompts"], record["token_usages"]
        assert (record["error_type"], record["streaming"]) == ("", exchange.is_streamed)
        assert exchange.route.endswith(record["route"])
        assert (prompt["prompt"], prompt["provider_response_id"]) == (
            exchange.prompt,
            f"id-{exchange.number}",
        )
        assert (usage["input_tokens"], usage["output_tokens"]) == exchange.usage
        assert usage["provider_response_id"] == f"id-{exchange.number}"
