"""Requests of Claude Code and Codex, replayed as on the wire."""

from __future__ import annotations

import json

import pytest
import zstandard

from aibridge_flask import Actor
from tests.conftest import MakeApp
from tests.support.exchanges import OWN, Exchange, load
from tests.support.server import PREFIX, Client, Server
from tests.support.upstream import ReceivedRequest, Upstream, event_stream, http_response

EXCHANGES = {exchange.name: exchange for exchange in load(OWN)}
Headers = list[tuple[str, str]]
Json = dict[str, object]

CENTRAL_ANTHROPIC, CENTRAL_OPENAI = "sk-ant-central-0123456789", "Bearer sk-oai-central-0123456789"
SESSION, THREAD = "5a0e4b7c-0f3d-4c52-9a41-7d2f7f0b6a10", "019a8c11-2f60-7c1d-8e55-3b5f0a1c9d42"
FOREIGN: Headers = [
    ("Cookie", "sid=of-another-place"),
    ("X-AIBridge-Token", "aib_0123456789"),
    ("X-AI-Bridge-Actor-ID", "somebody-else"),
    ("X-AI-Bridge-Actor-Metadata-Team", "admins"),
]


def write(client: Client, method: str, path: str, headers: Headers, body: bytes = b"") -> None:
    """Sends these header lines, in this order and spelling."""
    lines = [f"{method} {PREFIX}{path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    client.sock.sendall("\r\n".join([*lines, "\r\n"]).encode("latin-1") + body)


def end_to_end(headers: Headers) -> Headers:
    """The headers that the upstream must receive unchanged."""
    others = {"host", "connection", "authorization", "x-api-key", "accept-encoding"}
    return [(name.lower(), value) for name, value in headers if name.lower() not in others]


def check_request(received: ReceivedRequest, target: str, headers: Headers, body: bytes) -> None:
    """Target and body are exact; each header came once and unchanged, and there are no others."""
    assert (received.target, received.body) == (target, body)
    assert [(name, received.header(name)) for name, _ in end_to_end(headers)] == end_to_end(headers)
    assert received.header("content-length") == (str(len(body)) if body else None)
    expected = {name for name, _ in end_to_end(headers)} | {"host", "accept-encoding"}
    expected |= {"content-length"} if body else set()
    assert received.names() - {"authorization", "x-api-key"} == expected


def ask(
    server: Server, upstream: Upstream, path: str, headers: Headers, body: bytes, exchange: Exchange
) -> Json:
    """Runs a turn on a new connection; returns its record."""
    upstream.enqueue(*event_stream(exchange.answer, 100, "request-id: req_1", "Set-Cookie: a=b"))
    client = server.connect()
    write(client, "POST", path, [*headers, *FOREIGN], body)
    status, response_headers = client.head()
    assert (status, client.body(response_headers)) == (200, (exchange.answer, True))
    assert (response_headers["request-id"], response_headers["x-accel-buffering"]) == ("req_1", "no")
    assert response_headers["content-type"] == "text/event-stream; charset=utf-8"
    assert "set-cookie" not in response_headers
    client.close()
    return server.record(response_headers["x-aibridge-interception-id"])


def text(content: str) -> Json:
    return {"type": "text", "text": content}


def dumps(tree: Json) -> bytes:
    """Compact and without escapes, as JavaScript and Rust write JSON."""
    return json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode()


# Claude Code

CLAUDE = "/anthropic/v1/messages?beta=true"
BETAS = (
    "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,"
    "per-turn-control-2026-07-01,mid-conversation-tool-changes-2026-07-01,thinking-token-count-2026-05-13,"
    "advanced-tool-use-2025-11-20,effort-2025-11-24,a-beta-of-tomorrow-2031-01-01"
)
CLAUDE_HEADERS: Headers = [
    ("accept", "application/json"),
    ("content-type", "application/json"),
    ("user-agent", "claude-cli/2.1.330 (external, cli)"),
    ("x-claude-code-session-id", SESSION),
    ("x-stainless-arch", "x64"),
    ("x-stainless-lang", "js"),
    ("x-stainless-os", "Linux"),
    ("x-stainless-package-version", "0.128.0"),
    ("x-stainless-retry-count", "0"),
    ("x-stainless-runtime", "node"),
    ("x-stainless-runtime-version", "v24.3.0"),
    ("x-stainless-timeout", "600"),
    ("anthropic-beta", BETAS),
    ("anthropic-dangerous-direct-browser-access", "true"),
    ("anthropic-version", "2023-06-01"),
    ("anthropic-of-tomorrow", "Mixed Case; q=1, and a comma"),
    ("x-app", "cli"),
    ("authorization", "Bearer aib_0123456789"),
    ("connection", "keep-alive"),
    ("host", "127.0.0.1:8080"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
]
PROMPT = "When is high tide in Brest, and are both ferries on time?"
FIRST_TURN = [
    {
        "role": "user",
        "content": [
            text("<system-reminder>\nThe date is a Tuesday.\n</system-reminder>\n"),
            text("<system-reminder>\nNo project notes were found.\n</system-reminder>"),
            {**text(PROMPT), "cache_control": {"type": "ephemeral"}},
        ],
    },
    {"role": "system", "content": [text("# Environment\nA terminal on Linux.")]},
]


def claude_body(messages: object, **changes: object) -> bytes:
    user = {"device_id": "0f" * 32, "account_uuid": "", "session_id": SESSION}
    tools = [
        {"name": "read_log", "description": "One ship's log.", "input_schema": {"type": "object"}},
        {"type": "web_search_20250305", "name": "web_search"},
        {"type": "tool_kind_of_tomorrow", "name": "guess", "settings": {"depth": 1.50, "wide": None}},
    ]
    tree: Json = {
        "model": "claude-opus-4-5",
        "messages": messages,
        "system": [
            text("x-anthropic-billing-header: cc_version=2.1.330; cc_entrypoint=cli;"),
            {**text("You help at a terminal."), "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        ],
        "tools": tools,
        "metadata": {"user_id": json.dumps(user)},
        "max_tokens": 128000,
        "thinking": {"type": "adaptive", "display": "updates"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"},
        "safeguards": {"level": 2},
        "stream": True,
    }
    return dumps({**tree, **changes})


TOOL_ANSWER = EXCHANGES["anthropic/parallel_tools/streaming"]
CONTENT = json.loads(EXCHANGES["anthropic/parallel_tools/non-streaming"].answer)["content"]


def claude_turn(
    server: Server, upstream: Upstream, messages: object, extra: Headers = [], **changes: object
) -> Json:
    body, headers = claude_body(messages, **changes), [*CLAUDE_HEADERS, *extra]
    record = ask(server, upstream, CLAUDE, headers, body, TOOL_ANSWER)
    received = upstream.requests[-1]
    check_request(received, "/v1/messages?beta=true", headers, body)
    assert received.header("host") == f"127.0.0.1:{upstream.port}"
    assert received.header("accept-encoding") == "identity"
    assert (received.header("x-api-key"), received.header("authorization")) == (CENTRAL_ANTHROPIC, None)
    return record


def check_claude(record: Json, model: str = "claude-opus-4-5") -> None:
    expected = {
        "client": "Claude Code",
        "client_session_id": SESSION,
        "user_agent": "claude-cli/2.1.330 (external, cli)",
        "provider": "anthropic",
        "model": model,
        "route": "/v1/messages",
        "streaming": True,
        "status_code": 200,
        "error_type": "",
        "wire_exact": True,
        "credential_kind": "centralized",
    }
    assert {name: record[name] for name in expected} == expected


def prompts(record: Json) -> list[str]:
    return [prompt["prompt"] for prompt in record["user_prompts"]]


def test_claude_codes_first_turn(server: Server, upstream: Upstream) -> None:
    """The last message is the system's; the last block of the user's message is the prompt."""
    record = claude_turn(server, upstream, FIRST_TURN)
    check_claude(record)
    assert prompts(record) == [PROMPT]
    assert record["user_prompts"][0]["provider_response_id"] == "msg_01Ferries"
    assert (record["agent_id"], record["parent_agent_id"]) == ("", "")
    assert (record["thread_parent_id"], record["thread_root_id"]) == (None, None)


def test_claude_codes_usage_tools_and_thoughts(server: Server, upstream: Upstream) -> None:
    record = claude_turn(server, upstream, FIRST_TURN)
    (usage,) = record["token_usages"]
    assert usage["provider_response_id"] == "msg_01Ferries"
    assert usage["model"] == "claude-opus-4-5-20251101"
    assert (usage["input_tokens"], usage["output_tokens"]) == (52, 187)
    assert (usage["cache_read_input_tokens"], usage["cache_write_input_tokens"]) == (6100, 900)
    metadata = {"web_search_requests": 1, "cache_ephemeral_5m_input": 700, "cache_ephemeral_1h_input": 200}
    assert usage["metadata"] == metadata
    tools = [(use["tool_call_id"], use["tool"], json.loads(use["input"])) for use in record["tool_usages"]]
    assert tools == [
        ("srvtoolu_01Tide", "web_search", {"query": "high tide Brest today"}),
        ("toolu_01Armor", "read_log", {"ship": 'Armor "II"', "lines": 20}),
        ("toolu_01Pen", "read_log", {}),
    ]
    thoughts = [(thought["content"], thought["metadata"]["source"]) for thought in record["model_thoughts"]]
    assert thoughts == [("First the tide, then both logs at once.", "thinking")]


def test_claude_codes_plain_system_message_is_no_prompt_either(server: Server, upstream: Upstream) -> None:
    messages = [{"role": "user", "content": PROMPT}, {"role": "system", "content": "# Environment"}]
    assert prompts(claude_turn(server, upstream, messages)) == [PROMPT]


def test_the_session_is_also_read_from_claude_codes_body(server: Server, upstream: Upstream) -> None:
    """For example behind a proxy that drops unknown headers."""
    headers = [header for header in CLAUDE_HEADERS if header[0] != "x-claude-code-session-id"]
    record = ask(server, upstream, CLAUDE, headers, claude_body(FIRST_TURN), TOOL_ANSWER)
    check_claude(record)


def result(call: str) -> Json:
    return {"type": "tool_result", "tool_use_id": call, "content": "no delay"}


def with_results(messages: list[Json], *results: Json) -> list[Json]:
    """Adds the model's answer with its signatures and the tools' results to a conversation."""
    return [*messages, {"role": "assistant", "content": CONTENT}, {"role": "user", "content": [*results]}]


def test_claude_codes_tool_results_make_a_thread(server: Server, upstream: Upstream) -> None:
    """Results alone, then results with a reminder: neither is a prompt."""
    first = claude_turn(server, upstream, FIRST_TURN)
    turns = with_results(FIRST_TURN, result("toolu_01Armor"), result("toolu_01Pen"))
    second = claude_turn(server, upstream, turns)
    reminder = text("<system-reminder>\nKeep it short.\n</system-reminder>")
    turns = with_results(turns, result("toolu_01Pen"), reminder)
    third = claude_turn(server, upstream, turns)
    assert second["correlating_tool_call_id"] in {"toolu_01Armor", "toolu_01Pen"}
    assert third["correlating_tool_call_id"] == "toolu_01Pen"
    assert (second["thread_parent_id"], second["thread_root_id"]) == (first["id"], first["id"])
    assert (third["thread_parent_id"], third["thread_root_id"]) == (second["id"], first["id"])
    assert prompts(second) == prompts(third) == []
    check_claude(third)


def test_claude_codes_next_prompt_comes_after_results(server: Server, upstream: Upstream) -> None:
    """If a user interrupts a tool, result and prompt come in one message."""
    turns = with_results(
        FIRST_TURN, result("toolu_01Armor"), result("toolu_01Pen"), text("Stop, only the tide.")
    )
    record = claude_turn(server, upstream, turns)
    assert prompts(record) == ["Stop, only the tide."]
    assert record["correlating_tool_call_id"] == "toolu_01Pen"


def test_claude_codes_subagents_are_recorded(server: Server, upstream: Upstream) -> None:
    extra = [
        ("x-claude-code-agent-id", "agent-b71"),
        ("x-claude-code-parent-agent-id", "agent-a03"),
        ("x-claude-code-request-class", "main"),
    ]
    messages = [{"role": "user", "content": [text("Read the log of the Pen.")]}]
    record = claude_turn(server, upstream, messages, extra)
    check_claude(record)
    assert (record["agent_id"], record["parent_agent_id"]) == ("agent-b71", "agent-a03")
    assert prompts(record) == ["Read the log of the Pen."]


def test_claude_codes_side_request_passes_too(server: Server, upstream: Upstream) -> None:
    """It asks for a title in the same session, without tools; that request belongs to no thread."""
    schema = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
    changes = {
        "model": "claude-haiku-4-5",
        "tools": [],
        "output_config": {"format": {"type": "json_schema", "schema": schema}},
    }
    messages = [{"role": "user", "content": [text(f"<session>\n{PROMPT}\n</session>")]}]
    record = claude_turn(server, upstream, messages, **changes)
    check_claude(record, "claude-haiku-4-5")
    assert (record["thread_parent_id"], record["correlating_tool_call_id"]) == (None, "")


def record_count(server: Server) -> int:
    server.wait_until_applied()
    count = server.get("/interceptions?limit=1")["count"]
    assert isinstance(count, int)
    return count


def test_claude_code_counts_tokens_without_a_record(server: Server, upstream: Upstream) -> None:
    """The client's accept-encoding passes here, and an encoded answer comes back as it is."""
    before, encoded = record_count(server), zstandard.compress(b'{"input_tokens":4711}')
    upstream.enqueue(http_response(200, encoded, "content-encoding: zstd", "request-id: req_2"))
    headers = [header for header in CLAUDE_HEADERS if header[0] != "anthropic-beta"]
    headers.append(("anthropic-beta", f"{BETAS},token-counting-2024-11-01"))
    body = dumps({"model": "claude-opus-4-5", "messages": [{"role": "user", "content": "x"}], "tools": []})
    client = server.connect()
    write(client, "POST", "/anthropic/v1/messages/count_tokens?beta=true", [*headers, *FOREIGN], body)
    status, response_headers = client.head()
    assert (status, client.body(response_headers)) == (200, (encoded, True))
    assert (response_headers["content-encoding"], response_headers["request-id"]) == ("zstd", "req_2")
    (received,) = upstream.requests
    check_request(received, "/v1/messages/count_tokens?beta=true", headers, body)
    assert received.header("accept-encoding") == "gzip, deflate, br, zstd"
    assert received.header("x-api-key") == CENTRAL_ANTHROPIC
    assert "x-aibridge-interception-id" not in response_headers
    assert record_count(server) == before


def test_claude_code_lists_models(server: Server, upstream: Upstream) -> None:
    models = b'{"data":[{"id":"claude-opus-4-5","display_name":"Opus"}],"has_more":false}'
    upstream.enqueue(http_response(200, models))
    headers = [
        ("user-agent", "claude-code/2.1.330"),
        ("host", "localhost"),
        ("x-api-key", "sk-ant-own-0123456789"),
    ]
    client = server.connect()
    write(client, "GET", "/anthropic/v1/models?limit=1000", headers)
    assert client.body(client.head()[1]) == (models, True)
    (received,) = upstream.requests
    assert (received.method, received.target, received.body) == ("GET", "/v1/models?limit=1000", b"")
    assert received.header("user-agent") == "claude-code/2.1.330"
    assert received.header("x-api-key") == "sk-ant-own-0123456789"


def test_claude_code_keeps_one_connection(server: Server, upstream: Upstream) -> None:
    """Turns and errors, one after the other, on the same two connections."""
    client, overloaded = (
        server.connect(),
        b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
    )
    body = claude_body(FIRST_TURN)
    for _ in range(2):
        upstream.enqueue(http_response(529, overloaded, "retry-after: 1", "x-should-retry: true"))
        write(client, "POST", CLAUDE, CLAUDE_HEADERS, body)
        status, response_headers = client.head()
        assert (status, client.body(response_headers)) == (529, (overloaded, True))
        assert (response_headers["retry-after"], response_headers["x-should-retry"]) == ("1", "true")
        upstream.enqueue(*event_stream(TOOL_ANSWER.answer, 4096))
        write(client, "POST", CLAUDE, CLAUDE_HEADERS, body)
        assert client.body(client.head()[1]) == (TOOL_ANSWER.answer, True)
    assert [received.body for received in upstream.requests] == [body] * 4
    assert upstream.connections == 1


# Codex

CODEX = "/openai/v1/responses"
TURN = json.dumps(
    {"session_id": THREAD, "turn_id": "019a8c11-77aa-7e00-b0b0-0d9c6f1e2a33", "sandbox": "none"}
)
CODEX_HEADERS: Headers = [
    ("x-codex-beta-features", "remote_compaction_v2"),
    ("x-codex-turn-metadata", TURN),
    ("x-codex-window-id", f"{THREAD}:0"),
    ("x-client-request-id", THREAD),
    ("session-id", THREAD),
    ("thread-id", THREAD),
    ("version", "0.169.0"),
    ("originator", "codex_exec"),
    ("user-agent", "codex_exec/0.169.0 (Debian 12.0.0; x86_64) dumb (codex_exec; 0.169.0)"),
    ("content-type", "application/json"),
    ("accept", "text/event-stream"),
    ("authorization", "Bearer aib_0123456789"),
    ("host", "127.0.0.1:8080"),
]
ITEM_ANSWER = EXCHANGES["responses/every_item/streaming"]
ITEMS = json.loads(EXCHANGES["responses/every_item/non-streaming"].answer)["output"]


def item(role: str, *texts: str) -> Json:
    parts = [{"type": "input_text", "text": text} for text in texts]
    return {"type": "message", "role": role, "content": parts}


OPENING = [
    item("developer", "You work in a terminal.", "Ask before you delete."),
    item("user", "<environment_context>\n  <cwd>~/ingots</cwd>\n</environment_context>"),
    item("user", "Weigh ingot № 4", "and note the price of tin."),
]


def codex_body(items: list[Json], **changes: object) -> bytes:
    tools = [
        {"type": "function", "name": "exec_command", "strict": False, "parameters": {"type": "object"}},
        {"type": "namespace", "name": "scales", "tools": [{"type": "function", "name": "weigh"}]},
        {"type": "web_search", "external_web_access": True},
        {"type": "kind_of_tomorrow", "nested": [{"a": [1, 2.0, None]}]},
    ]
    tree: Json = {
        "model": "gpt-5.1-codex",
        "input": items,
        "tools": tools,
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": THREAD,
        "client_metadata": {"session_id": THREAD},
    }
    return dumps({**tree, **changes})


def codex_turn(
    server: Server, upstream: Upstream, items: list[Json], extra: Headers = [], is_compressed: bool = False
) -> Json:
    plain, headers = codex_body(items), [*CODEX_HEADERS, *extra]
    body = zstandard.compress(plain) if is_compressed else plain
    record = ask(server, upstream, CODEX, headers, body, ITEM_ANSWER)
    received = upstream.requests[-1]
    check_request(received, "/v1/responses", headers, body)
    assert received.header("host") == f"127.0.0.1:{upstream.port}"
    assert received.header("accept-encoding") == "identity"
    return record


def check_codex(record: Json) -> None:
    expected = {
        "client": "Codex",
        "client_session_id": THREAD,
        "provider": "openai",
        "model": "gpt-5.1-codex",
        "route": "/v1/responses",
        "streaming": True,
        "status_code": 200,
        "error_type": "",
        "wire_exact": True,
    }
    assert {name: record[name] for name in expected} == expected


def test_codexs_first_turn(server: Server, upstream: Upstream) -> None:
    """Neither the developer's message nor the environment is the prompt."""
    record = codex_turn(server, upstream, OPENING)
    check_codex(record)
    assert prompts(record) == ["Weigh ingot № 4\nand note the price of tin."]
    assert record["user_prompts"][0]["provider_response_id"] == "resp_0tin"
    received = upstream.requests[0]
    assert (received.header("authorization"), received.header("x-api-key")) == (CENTRAL_OPENAI, None)


def test_codexs_usage_tools_and_thoughts(server: Server, upstream: Upstream) -> None:
    record = codex_turn(server, upstream, OPENING)
    (usage,) = record["token_usages"]
    assert (usage["provider_response_id"], usage["model"]) == ("resp_0tin", "gpt-5.1-codex")
    assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (1104, 4096)
    assert (usage["output_tokens"], usage["metadata"]) == (
        410,
        {"output_reasoning": 256, "web_search_requests": 1},
    )
    tools = [(use["tool_call_id"], use["item_id"], use["tool"]) for use in record["tool_usages"]]
    assert tools == [
        ("ws_0tin", "ws_0tin", "web_search"),
        ("call_weigh", "fc_0tin", "weigh"),
        ("call_patch", "ctc_0tin", "apply_patch"),
    ]
    assert [use["input"] for use in record["tool_usages"][1:]] == [ITEMS[3]["arguments"], ITEMS[4]["input"]]
    thoughts = [(thought["content"], thought["metadata"]["source"]) for thought in record["model_thoughts"]]
    assert thoughts == [
        ("**Finding the price**\n\nThe market page comes first.", "reasoning_summary"),
        ("**Weighing**\n\nThe scale is a tool.", "reasoning_summary"),
        ("The price is known; I weigh the ingot next.", "commentary"),
    ]


def test_a_header_that_is_not_ascii_passes(server: Server, upstream: Upstream) -> None:
    """Metadata of a turn may name a folder; its bytes pass unchanged."""
    folder = json.dumps({"cwd": "~/Größen/№ 4"}, ensure_ascii=False).encode().decode("latin-1")
    record = codex_turn(server, upstream, OPENING, [("x-codex-workspace", folder)])
    check_codex(record)


def test_an_empty_header_passes(server: Server, upstream: Upstream) -> None:
    record = codex_turn(server, upstream, OPENING, [("x-codex-parent-thread-id", "")])
    check_codex(record)


def test_codexs_zstd_passes_unchanged(server: Server, upstream: Upstream) -> None:
    """With a login the body is compressed; the bridge reads it all the same."""
    extra = [
        ("content-encoding", "zstd"),
        ("chatgpt-account-id", "acct-0042"),
        ("x-codex-routing-hint", "model=gpt-5.1-codex"),
    ]
    record = codex_turn(server, upstream, OPENING, extra, is_compressed=True)
    check_codex(record)
    assert prompts(record) == ["Weigh ingot № 4\nand note the price of tin."]


def test_codexs_outputs_make_a_thread(server: Server, upstream: Upstream) -> None:
    """The model's items go back with their encrypted reasoning."""
    first = codex_turn(server, upstream, OPENING)
    weighed = {"type": "function_call_output", "call_id": "call_weigh", "output": "4.2 kg"}
    patched = {"type": "custom_tool_call_output", "call_id": "call_patch", "output": "done"}
    second = codex_turn(server, upstream, [*OPENING, *ITEMS, weighed, patched])
    assert second["correlating_tool_call_id"] == "call_patch"
    assert (second["thread_parent_id"], second["thread_root_id"]) == (first["id"], first["id"])
    assert second["user_prompts"] == []


@pytest.mark.parametrize("path", [CODEX, "/copilot/responses"])
@pytest.mark.parametrize("protocol", ["websocket", "WebSocket"])
def test_codexs_websocket_is_refused_at_once(
    server: Server, upstream: Upstream, path: str, protocol: str
) -> None:
    """Codex then uses plain HTTP without a pause."""
    upgrade = [
        ("connection", "Upgrade"),
        ("upgrade", protocol),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
        ("openai-beta", "responses_websockets=2026-02-06"),
    ]
    client = server.connect()
    write(client, "GET", path, [*CODEX_HEADERS, *upgrade])
    status, response_headers = client.head()
    body, whole = client.body(response_headers)
    assert (status, response_headers["content-type"], whole) == (426, "application/json", True)
    error = json.loads(body)["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "websocket_not_supported")
    assert response_headers["x-aibridge-interception-id"]
    assert upstream.requests == []
    check_codex(codex_turn(server, upstream, OPENING))


def test_codex_lists_models(server: Server, upstream: Upstream) -> None:
    models = b'{"models":[{"slug":"gpt-5.1-codex"}]}'
    upstream.enqueue(http_response(200, models, 'etag: W/"7"'))
    headers = [*CODEX_HEADERS[5:9], CODEX_HEADERS[-1], ("authorization", "Bearer eyJ.own.0123456789")]
    client = server.connect()
    write(client, "GET", "/openai/v1/models?client_version=0.169.0", [*headers, *FOREIGN])
    status, response_headers = client.head()
    assert (status, client.body(response_headers), response_headers["etag"]) == (200, (models, True), 'W/"7"')
    (received,) = upstream.requests
    assert (received.method, received.target) == ("GET", "/v1/models?client_version=0.169.0")
    assert received.header("authorization") == "Bearer eyJ.own.0123456789"
    names = {name for name, _ in end_to_end(headers)}
    assert received.names() == names | {"host", "authorization"}


def test_codex_gets_the_providers_retry_after(server: Server, upstream: Upstream) -> None:
    """Without retry-after a 429 ends its turn for good."""
    refusal = b'{"error":{"message":"slowly","type":"requests","param":null,"code":"rate_limit_exceeded"}}'
    upstream.enqueue(http_response(429, refusal, "retry-after: 2", "x-request-id: req_9"))
    client = server.connect()
    write(client, "POST", CODEX, CODEX_HEADERS, codex_body(OPENING))
    status, response_headers = client.head()
    assert (status, client.body(response_headers)) == (429, (refusal, True))
    assert (response_headers["retry-after"], response_headers["x-request-id"]) == ("2", "req_9")
    record = server.record(response_headers["x-aibridge-interception-id"])
    assert (record["error_type"], record["error_message"]) == ("rate_limited", "slowly")
    assert prompts(record) == ["Weigh ingot № 4\nand note the price of tin."]


# Both, behind a reverse proxy

FORWARDED = {
    "X-Forwarded-For": "10.1.2.3",
    "X-Forwarded-Host": "bridge.example",
    "X-Forwarded-Proto": "https",
    "Forwarded": "for=10.1.2.3",
    "X-Real-IP": "10.1.2.3",
    "Via": "1.1 edge",
}


@pytest.mark.parametrize(("path", "body"), [(CLAUDE, claude_body(FIRST_TURN)), (CODEX, codex_body(OPENING))])
def test_a_proxys_headers_are_not_passed_on(
    make_app: MakeApp, upstream: Upstream, path: str, body: bytes
) -> None:
    """A host that identifies actors itself may be behind a proxy; the provider sees nothing of it."""
    app = make_app()
    app.extensions["aibridge"].actor_loader(lambda request: Actor("alice"))
    upstream.enqueue(http_response(200, b"{}"))
    headers = {**FORWARDED, **dict(FOREIGN), "X-App": "cli", "Content-Type": "application/json"}
    response = app.test_client().post(PREFIX + path, data=body, headers=headers)
    assert (response.status_code, response.data) == (200, b"{}")
    (received,) = upstream.requests
    dropped = {name.lower() for name in [*FORWARDED, *dict(FOREIGN)]}
    assert received.names() & dropped == set()
    assert (received.header("x-app"), received.body) == ("cli", body)


# Streams with unusual layouts


def replay(server: Server, upstream: Upstream, name: str, size: int) -> Json:
    exchange = EXCHANGES[name]
    upstream.enqueue(*event_stream(exchange.answer, size))
    client = server.connect()
    client.send("POST", exchange.route, exchange.request)
    _, response_headers = client.head()
    assert client.body(response_headers)[1]
    client.close()
    return server.record(response_headers["x-aibridge-interception-id"])


SIZES = pytest.mark.parametrize("size", [0, 1, 5])


@SIZES
def test_a_message_of_unusual_layout_is_read(server: Server, upstream: Upstream, size: int) -> None:
    record = replay(server, upstream, "anthropic/odd_writing/streaming", size)
    (usage,), (tool,) = record["token_usages"], record["tool_usages"]
    assert (usage["provider_response_id"], usage["input_tokens"], usage["output_tokens"]) == (
        "msg_01Odd",
        11,
        9,
    )
    assert (tool["tool_call_id"], tool["tool"], tool["input"]) == ("toolu_01Odd", "say", '{"word":"ai"}')
    assert (record["error_type"], record["wire_exact"]) == ("", True)


@SIZES
def test_a_completion_of_unusual_layout_is_read(server: Server, upstream: Upstream, size: int) -> None:
    record = replay(server, upstream, "chatcompletions/odd_writing/streaming", size)
    (usage,), (thought,) = record["token_usages"], record["model_thoughts"]
    assert (usage["provider_response_id"], usage["input_tokens"], usage["output_tokens"]) == (
        "gen-Odd1",
        5,
        6,
    )
    assert (thought["content"], thought["metadata"]) == ("One, two.", {"source": "thinking"})
    assert record["error_type"] == ""


@SIZES
def test_interleaved_calls_are_read(server: Server, upstream: Upstream, size: int) -> None:
    record = replay(server, upstream, "chatcompletions/parallel_tools/streaming", size)
    tools = [(use["tool_call_id"], use["tool"], use["input"]) for use in record["tool_usages"]]
    assert tools == [("call_Q1", "track", '{"parcel":"Q1"}'), ("call_Z9", "track", '{"parcel":"Z9"}')]
    (usage,) = record["token_usages"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (376, 1024)
    assert (usage["output_tokens"], usage["metadata"]) == (130, {"completion_reasoning": 64})


@pytest.mark.parametrize(
    ("name", "type"),
    [
        ("anthropic/error_in_stream/streaming", "overloaded"),
        ("chatcompletions/error_in_stream/streaming", "server_error"),
        ("responses/failed_in_stream/streaming", "server_error"),
    ],
)
def test_an_error_in_a_stream_is_recorded(server: Server, upstream: Upstream, name: str, type: str) -> None:
    """The status 200 was sent before."""
    record = replay(server, upstream, name, 5)
    assert (record["status_code"], record["error_type"]) == (200, type)
    assert json.dumps(record["error_message"]).encode() in EXCHANGES[name].answer
