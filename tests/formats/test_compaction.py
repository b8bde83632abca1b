"""Codex has its conversation compacted by the upstream."""

from __future__ import annotations

import json

from tests.support.server import Server
from tests.support.upstream import Upstream, http_response

ROUTE = "/openai/v1/responses/compact"
USER = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Weigh it."}]}
ANSWER = {
    "id": "resp_c1",
    "object": "response.compaction",
    "created_at": 1,
    "output": [USER, {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAA"}],
    "usage": {"input_tokens": 150_000, "output_tokens": 900, "total_tokens": 150_900},
}


def test_a_compaction_passes_unchanged_and_is_recorded(toolbridge: Server, upstream: Upstream) -> None:
    request = json.dumps({"model": "m-codex", "instructions": "You are Codex", "input": [USER]}).encode()
    answer = json.dumps(ANSWER).encode()
    upstream.enqueue(http_response(200, answer))
    status, body, whole, id = toolbridge.post(ROUTE, request)
    assert (status, body, whole) == (200, answer, True)
    assert upstream.requests[0].body == request
    record = toolbridge.record(id)
    assert (record["kind"], record["route"]) == ("compaction", "/v1/responses/compact")
    assert (record["model"], record["user_prompts"], record["tool_usages"]) == ("m-codex", [], [])
    (usage,) = record["token_usages"]
    counts = (usage["provider_response_id"], usage["input_tokens"], usage["output_tokens"])
    assert counts == ("resp_c1", 150_000, 900)
    (found,) = toolbridge.get("/interceptions?q=kind:compaction")["results"]
    assert found["id"] == id


def test_other_interceptions_are_the_main_conversations(server: Server, upstream: Upstream) -> None:
    upstream.enqueue(http_response(200, json.dumps(ANSWER).encode()))
    request = json.dumps({"model": "m", "input": "hi"}).encode()
    id = server.post("/openai/v1/responses", request)[3]
    assert server.record(id)["kind"] == "main"
