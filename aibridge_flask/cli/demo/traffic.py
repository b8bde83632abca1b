"""A little live traffic: people who work with their tools while somebody looks."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import requests

from ...model import new_id
from .app import PERSON_HEADER
from .people import CLIENTS, PEOPLE, Client, Model, Person
from .providers import FAILURE_HEADER, TOOL_HEADER
from .texts import PROMPTS

Json = dict[str, Any]
_PAUSE_SECONDS = (0.5, 3.0)
_FAILURE_RATE, _TOOL_RATE = 0.04, 0.7
_AGENTS_TURN = 2  # which a subagent takes
_CONTEXT = "The project has a queue of orders, a login page and a nightly backup. " * 300
_TOOL = "Read"
_SCHEMA = {"type": "object", "properties": {"file_path": {"type": "string"}}}
_SESSION_HEADERS = {
    "Claude Code": "X-Claude-Code-Session-Id",
    "Codex": "session-id",
    "OpenCode": "X-OpenCode-Session",
}


class Traffic:
    """Sends requests to the bridge at `url`, one after another."""

    def __init__(self, url: str) -> None:
        self._url, self._random, self._stopped = url, random.Random(), threading.Event()  # noqa: S311
        self.sent = 0

    def run(self, count: int, pauses: bool = True) -> None:
        """Sends about `count` requests, or goes on until `stop`."""
        with requests.Session() as session:
            session.trust_env = False
            while self.sent < count and not self._stopped.is_set():
                for path, headers, body in self._conversation():
                    if self._stopped.wait(self._random.uniform(*_PAUSE_SECONDS) if pauses else 0):
                        return
                    with contextlib.suppress(requests.RequestException):
                        session.post(self._url + path, json=body, headers=headers, timeout=30)
                    self.sent += 1

    def stop(self) -> None:
        self._stopped.set()

    def _conversation(self) -> Iterator[tuple[str, Mapping[str, Any], Json]]:
        """Yields the requests of one session: (path, headers, body)."""
        chance = self._random
        (person,) = chance.choices(PEOPLE, [each.weight for each in PEOPLE])
        (client,) = chance.choices(CLIENTS, [each.weight for each in CLIENTS])
        (model,) = chance.choices(client.models, [each.weight for each in client.models])
        headers = {**_headers(person, client), _SESSION_HEADERS[client.name]: new_id()}
        agent = {"X-Claude-Code-Agent-Id": new_id()[:8]}
        messages = [{"role": "user", "content": chance.choice(PROMPTS)}]
        path = f"/{model.provider}{client.route}"
        for number in range(chance.randint(1, 5)):
            extra = {TOOL_HEADER: _TOOL} if chance.random() < _TOOL_RATE else {}
            if chance.random() < _FAILURE_RATE:
                extra = {FAILURE_HEADER: "529"}
            if client.has_subagents and number == _AGENTS_TURN:
                extra = {**extra, **agent}
            yield path, {**headers, **extra}, _body(client, model, messages)
            messages = [
                *messages,
                {"role": "assistant", "content": "I look at it."},
                {"role": "user", "content": chance.choice(PROMPTS)},
            ]


def _headers(person: Person, client: Client) -> Json:
    key = {"X-Api-Key": "sk-ant-made-up-of-finn"} if person.own_key and "messages" in client.route else {}
    return {"User-Agent": client.user_agent, PERSON_HEADER: person.id.encode(), **key}


def _body(client: Client, model: Model, messages: list[Json]) -> Json:
    """Returns a body in the client's API, with a tool of the client's own."""
    common = {"model": model.name, "stream": True}
    about = {"name": _TOOL, "description": "Reads a file."}
    if client.route == "/v1/messages":
        tools = [{**about, "input_schema": _SCHEMA}]
        thinking = {"type": "enabled", "budget_tokens": 1024}
        return {
            **common,
            "max_tokens": 4096,
            "system": _CONTEXT,
            "thinking": thinking,
            "tools": tools,
            "messages": messages,
        }
    if client.route == "/v1/responses":
        function = {"type": "function", **about, "parameters": _SCHEMA}
        return {**common, "instructions": _CONTEXT, "input": messages, "tools": [function]}
    system = {"role": "system", "content": _CONTEXT}
    tools = [{"type": "function", "function": {**about, "parameters": _SCHEMA}}]
    return {**common, "messages": [system, *messages], "tools": tools}
