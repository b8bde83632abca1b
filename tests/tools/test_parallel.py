"""Many at once, all different: everybody gets the own answer, and every record is of one request."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.conftest import Start
from tests.support.server import PATIENCE, Client, Server, until
from tests.support.upstream import LAST_CHUNK, Heard, Step, Upstream, answer, chunk, stream_head

COUNT = 200
ROUTES = ("/anthropic/v1/messages", "/openai/v1/chat/completions", "/openai/v1/responses")


@dataclass(frozen=True)
class Case:
    """A request, and all that belongs to it; `number` is in all of its parts."""

    number: int

    @property
    def route(self) -> str:
        return ROUTES[self.number % 3]

    @property
    def streamed(self) -> bool:
        return self.number // 3 % 2 == 0

    @property
    def prompt(self) -> str:
        return f"question {self.number} " + "x" * (1 + self.number * 37 % 5000)

    @property
    def text(self) -> str:
        return f"answer {self.number} " + "y" * (self.number * 91 % 9000)

    @property
    def body(self) -> bytes:
        said = [{"role": "user", "content": self.prompt}]
        spoken = {"input": said} if self.route.endswith("responses") else {"messages": said}
        return json.dumps({"model": "m", "stream": self.streamed, **spoken}).encode()

    @property
    def usage(self) -> tuple[int, int]:
        return self.number + 1, 3 * self.number + 1

    def events(self) -> list[bytes]:
        """A streamed answer; the event that has the usage comes before the last one."""
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
            pieces = [{"choices": [{"delta": {"content": t}}]} for t in (self.text[:half], self.text[half:])]
            usage = {"choices": [], "usage": {"prompt_tokens": first, "completion_tokens": second}}
            return [
                *(_data({"id": id, "model": "m", **one}) for one in [*pieces, usage]),
                b"data: [DONE]\n\n",
            ]
        whole = {"id": id, "model": "m", "usage": {"input_tokens": first, "output_tokens": second}}
        return [
            _named("response.created", response={"id": id, "model": "m"}),
            _named("response.output_text.delta", delta=self.text[:half]),
            _named("response.output_text.delta", delta=self.text[half:]),
            _named("response.completed", response=whole),
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

    def told(self) -> bytes:
        """What the client must get: who did not ask for the usage of a chat does not see it."""
        if not self.streamed:
            return self.whole()
        hidden = b'"choices": [], "usage"' if self.route == ROUTES[1] else b"\0"
        return b"".join(event for event in self.events() if hidden not in event)


def _data(event: object) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def _named(type: str, **more: object) -> bytes:
    return b"event: " + type.encode() + b"\n" + _data({"type": type, **more})


def answers(heard: Heard, together: threading.Barrier) -> Iterator[Step]:
    """Nobody is answered before all are here, nor gets the rest before all have begun."""
    asked = json.loads(heard.body)
    said = asked.get("messages") or asked["input"]
    case = Case(int(said[0]["content"].split()[1]))
    together.wait(PATIENCE)
    if case.streamed:
        yield stream_head() + chunk(case.events()[0])
    together.wait(PATIENCE)
    if case.streamed:
        yield from map(chunk, case.events()[1:])
        yield LAST_CHUNK
    else:
        yield answer(200, case.whole())


class Asker(threading.Thread):
    """A client that asks one thing after another on its connection."""

    def __init__(self, server: Server, cases: list[Case]) -> None:
        super().__init__(daemon=True)
        self._client: Client = server.connect()
        self._cases = cases
        self.got: list[tuple[Case, int, tuple[bytes, bool], str]] = []
        self.start()

    def run(self) -> None:
        for case in self._cases:
            self._client.send("POST", case.route, case.body)
            status, headers = self._client.head()
            body = self._client.body(headers)
            self.got.append((case, status, body, headers["x-aibridge-interception-id"]))


@pytest.mark.parametrize(
    ("kind", "options"), [("gevent", ("--workers=2",)), ("gthread", (f"--threads={COUNT + 8}",))]
)
def test_everybody_gets_the_own_answer_and_the_own_record(
    start: Start, upstream: Upstream, kind: str, options: tuple[str, ...]
) -> None:
    server = start(*options, kind=kind, keepalive_interval=60.0)
    together = threading.Barrier(COUNT)
    upstream.handler = lambda heard: answers(heard, together)
    askers = [Asker(server, [Case(number), Case(number + COUNT)]) for number in range(COUNT)]
    for asker in askers:
        asker.join(PATIENCE * 2)
    got = [one for asker in askers for one in asker.got]
    assert len(got) == 2 * COUNT
    for case, status, body, _ in got:
        assert (status, body) == (200, (case.told(), True))
    until(lambda: all(one["ended_at"] for one in server.get("/interceptions?limit=1000")["results"]))
    found = {one["id"]: one for one in server.get("/interceptions?limit=1000")["results"]}
    assert set(found) == {id for _, _, _, id in got}
    for case, _, _, id in got:
        record = found[id]
        (prompt,), (usage,) = record["user_prompts"], record["token_usages"]
        assert (record["error_type"], record["streaming"]) == ("", case.streamed)
        assert case.route.endswith(record["route"])
        assert (prompt["prompt"], prompt["provider_response_id"]) == (
            case.prompt,
            f"id-{case.number}",
        )
        assert (usage["input_tokens"], usage["output_tokens"]) == case.usage
        assert usage["provider_response_id"] == f"id-{case.number}"
