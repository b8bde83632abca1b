"""Applications whose requests name their actor in a header, and what these actors have recorded."""

from __future__ import annotations

import json
from typing import Any

from flask import Flask, Request
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from aibridge_flask import Actor
from tests.conftest import MakeApp
from tests.support.server import PREFIX
from tests.support.upstream import Upstream, http_response

PEOPLE = {
    "ann": Actor("ann", {"username": "Ann"}, groups=("blue", "red")),
    "bob": Actor("bob", groups=("red",)),
    "root": Actor("root", admin=True),
}
MESSAGES = "/anthropic/v1/messages"
CHAT = "/openai/v1/chat/completions"
MODEL = "claude-sonnet-4-5"


def named_actor(request: Request) -> Actor | None:
    return PEOPLE.get(request.headers.get("X-Who", ""))


def app_for_people(make_app: MakeApp, **settings: object) -> Flask:
    app = make_app(**settings)
    app.extensions["aibridge"].actor_loader(named_actor)
    return app


class Person:
    """Asks an application as one actor."""

    def __init__(self, app: Flask, upstream: Upstream, name: str) -> None:
        self._client: FlaskClient = app.test_client()
        self._upstream, self.name = upstream, name

    def ask(
        self,
        text: str = "hi",
        *blocks: dict[str, object],
        path: str = MESSAGES,
        model: str = MODEL,
        status: int = 200,
        session: str = "",
        answers: str = "",
        **headers: str,
    ) -> str:
        """Sends a prompt, or the result of the tool call `answers`. `blocks` are the upstream's answer.

        Returns the interception's id.
        """
        content = [{"type": "tool_result", "tool_use_id": answers, "content": "done"}] if answers else text
        body = {"model": model, "messages": [{"role": "user", "content": content}]}
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if session:
            fields |= {"User-Agent": "claude-cli/2.1", "X-Claude-Code-Session-Id": session}
        self._upstream.enqueue(http_response(status, answer(blocks, model, path)))
        response = self._client.post(
            PREFIX + path, data=json.dumps(body), headers={"X-Who": self.name, **fields}, buffered=True
        )
        assert response.status_code == status
        return str(response.headers["X-AIBridge-Interception-Id"])

    def get(self, path: str, method: str = "GET", **options: Any) -> TestResponse:
        headers = {"X-Who": self.name, **options.pop("headers", {})}
        return self._client.open(PREFIX + path, method=method, headers=headers, **options)

    def read(self, path: str, **parameters: object) -> Any:
        """Returns the JSON of an answer."""
        response = self.get(path, **({"query_string": parameters} if parameters else {}))
        assert response.status_code == 200, response.get_data()
        return response.get_json()

    def change(self, method: str, path: str, json: object = None, **headers: str) -> TestResponse:
        fields = {"Content-Type": "application/json", **headers}
        return self.get(path, method, json=json, headers={k.replace("_", "-"): v for k, v in fields.items()})


def answer(blocks: tuple[dict[str, object], ...], model: str, path: str) -> bytes:
    if path == CHAT:
        return json.dumps(
            {
                "id": "chat_1",
                "model": model,
                "choices": [],
                "usage": {"prompt_tokens": 7, "completion_tokens": 3},
            }
        ).encode()
    usage = {
        "input_tokens": 10,
        "output_tokens": 20,
        "cache_read_input_tokens": 30,
        "cache_creation_input_tokens": 40,
    }
    return json.dumps(
        {"id": "msg_1", "type": "message", "model": model, "content": blocks, "usage": usage}
    ).encode()


def thinks(text: str = "hmm") -> dict[str, object]:
    return {"type": "thinking", "thinking": text}


def calls(id: str, tool: str = "Read", **input: object) -> dict[str, object]:
    return {"type": "tool_use", "id": id, "name": tool, "input": input}
