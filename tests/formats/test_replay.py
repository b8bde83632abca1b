"""Claude Code and Codex, replayed as they write their requests on the wire."""

from __future__ import annotations

import json

import pytest
import zstandard

from aibridge_flask import Actor
from tests.conftest import MakeApp
from tests.support.exchanges import OWN, Exchange, load
from tests.support.server import PREFIX, Client, Server
from tests.support.upstream import Heard, Upstream, answer, streamed

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
    """The very lines, in this order and spelling."""
    lines = [f"{method} {PREFIX}{path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    client.sock.sendall("\r\n".join([*lines, "\r\n"]).encode("latin-1") + body)


def passed(headers: Headers, *but: str) -> Headers:
    """Those that the upstream must hear as they were written."""
    ends = {"host", "connection", "authorization", "x-api-key", "accept-encoding", *but}
    return [(name.lower(), value) for name, value in headers if name.lower() not in ends]


def check_heard(heard: Heard, target: str, headers: Headers, body: bytes) -> None:
    """The target and the body to the byte, each header once and unchanged, and nothing foreign."""
    assert (heard.target, heard.body) == (target, body)
    assert [(name, heard.header(name)) for name, _ in passed(headers)] == passed(headers)
    assert heard.header("content-length") == (str(len(body)) if body else None)
    expected = {name for name, _ in passed(headers)} | {"host", "accept-encoding"}
    expected |= {"content-length"} if body else set()
    assert heard.names() - {"authorization", "x-api-key"} == expected


def ask(
    server: Server, upstream: Upstream, path: str, headers: Headers, body: bytes, exchange: Exchange
) -> Json:
    """One whole turn on a connection of its own; gives the record."""
    upstream.say(*streamed(exchange.answer, 100, "request-id: req_1", "Set-Cookie: a=b"))
    client = server.connect()
    write(client, "POST", path, [*headers, *FOREIGN], body)
    status, got = client.head()
    assert (status, client.body(got)) == (200, (exchange.answer, True))
    assert (got["request-id"], got["x-accel-buffering"]) == ("req_1", "no")
    assert got["content-type"] == "text/event-stream; charset=utf-8"
    assert "set-cookie" not in got
    client.close()
    return server.record(got["x-aibridge-interception-id"])


def text(said: str) -> Json:
    return {"type": "text", "text": said}


def dumps(tree: Json) -> bytes:
    """As JavaScript and Rust write it: compact, UTF-8 as it is."""
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
    heard = upstream.heard[-1]
    check_heard(heard, "/v1/messages?beta=true", headers, body)
    assert heard.header("host") == f"127.0.0.1:{upstream.port}"
    assert heard.header("accept-encoding") == "identity"
    assert (heard.header("x-api-key"), heard.header("authorization")) == (CENTRAL_ANTHROPIC, None)
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
    return [one["prompt"] for one in record["user_prompts"]]


def test_claude_codes_first_turn(server: Server, upstream: Upstream) -> None:
    """The newest message is the system's, and the newest block of the user's is the prompt."""
    record = claude_turn(server, upstream, FIRST_TURN)
    check_claude(record)
    assert prompts(record) == [PROMPT]
    assert record["user_prompts"][0]["provider_response_id"] == "msg_01Ferries"
    assert (record["agent_id"], record["parent_agent_id"]) == ("", "")
    assert (record["thread_parent_id"], record["thread_root_id"]) == (None, None)


def test_what_claude_codes_turn_used(server: Server, upstream: Upstream) -> None:
    record = claude_turn(server, upstream, FIRST_TURN)
    (usage,) = record["token_usages"]
    assert usage["provider_response_id"] == "msg_01Ferries"
    assert usage["model"] == "claude-opus-4-5-20251101"
    assert (usage["input_tokens"], usage["output_tokens"]) == (52, 187)
    assert (usage["cache_read_input_tokens"], usage["cache_write_input_tokens"]) == (6100, 900)
    further = {"web_search_requests": 1, "cache_ephemeral_5m_input": 700, "cache_ephemeral_1h_input": 200}
    assert usage["metadata"] == further
    tools = [(one["tool_call_id"], one["tool"], json.loads(one["input"])) for one in record["tool_usages"]]
    assert tools == [
        ("srvtoolu_01Tide", "web_search", {"query": "high tide Brest today"}),
        ("toolu_01Armor", "read_log", {"ship": 'Armor "II"', "lines": 20}),
        ("toolu_01Pen", "read_log", {}),
    ]
    thoughts = [(one["content"], one["metadata"]["source"]) for one in record["model_thoughts"]]
    assert thoughts == [("First the tide, then both logs at once.", "thinking")]


def test_claude_codes_plain_system_message_is_passed_over_too(server: Server, upstream: Upstream) -> None:
    messages = [{"role": "user", "content": PROMPT}, {"role": "system", "content": "# Environment"}]
    assert prompts(claude_turn(server, upstream, messages)) == [PROMPT]


def test_the_session_is_in_claude_codes_body_as_well(server: Server, upstream: Upstream) -> None:
    """Behind a proxy that drops unknown headers, say."""
    headers = [one for one in CLAUDE_HEADERS if one[0] != "x-claude-code-session-id"]
    record = ask(server, upstream, CLAUDE, headers, claude_body(FIRST_TURN), TOOL_ANSWER)
    check_claude(record)


def result(call: str) -> Json:
    return {"type": "tool_result", "tool_use_id": call, "content": "no delay"}


def after(messages: list[Json], *results: Json) -> list[Json]:
    """The conversation so far, the model's answer with its signatures, and the tools' results."""
    return [*messages, {"role": "assistant", "content": CONTENT}, {"role": "user", "content": [*results]}]


def test_claude_codes_tool_results_make_a_thread(server: Server, upstream: Upstream) -> None:
    """Results alone, then results with a reminder: neither is the user's."""
    first = claude_turn(server, upstream, FIRST_TURN)
    turns = after(FIRST_TURN, result("toolu_01Armor"), result("toolu_01Pen"))
    second = claude_turn(server, upstream, turns)
    reminder = text("<system-reminder>\nKeep it short.\n</system-reminder>")
    turns = after(turns, result("toolu_01Pen"), reminder)
    third = claude_turn(server, upstream, turns)
    assert second["correlating_tool_call_id"] in {"toolu_01Armor", "toolu_01Pen"}
    assert third["correlating_tool_call_id"] == "toolu_01Pen"
    assert (second["thread_parent_id"], second["thread_root_id"]) == (first["id"], first["id"])
    assert (third["thread_parent_id"], third["thread_root_id"]) == (second["id"], first["id"])
    assert prompts(second) == prompts(third) == []
    check_claude(third)


def test_claude_codes_next_prompt_stands_behind_results(server: Server, upstream: Upstream) -> None:
    """A user who interrupts a tool: result and prompt come in one message."""
    turns = after(FIRST_TURN, result("toolu_01Armor"), result("toolu_01Pen"), text("Stop, only the tide."))
    record = claude_turn(server, upstream, turns)
    assert prompts(record) == ["Stop, only the tide."]
    assert record["correlating_tool_call_id"] == "toolu_01Pen"


def test_claude_codes_subagents_are_told_apart(server: Server, upstream: Upstream) -> None:
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
    """A title is asked for with the same session, without tools; it belongs to no thread."""
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


def records(server: Server) -> int:
    count = server.get("/interceptions?limit=1")["count"]
    assert isinstance(count, int)
    return count


def test_claude_code_counts_tokens_without_a_record(server: Server, upstream: Upstream) -> None:
    """The client's own accept-encoding goes on here, and a coded answer comes back as it is."""
    before, coded = records(server), zstandard.compress(b'{"input_tokens":4711}')
    upstream.say(answer(200, coded, "content-encoding: zstd", "request-id: req_2"))
    headers = [one for one in CLAUDE_HEADERS if one[0] != "anthropic-beta"]
    headers.append(("anthropic-beta", f"{BETAS},token-counting-2024-11-01"))
    body = dumps({"model": "claude-opus-4-5", "messages": [{"role": "user", "content": "x"}], "tools": []})
    client = server.connect()
    write(client, "POST", "/anthropic/v1/messages/count_tokens?beta=true", [*headers, *FOREIGN], body)
    status, got = client.head()
    assert (status, client.body(got)) == (200, (coded, True))
    assert (got["content-encoding"], got["request-id"]) == ("zstd", "req_2")
    (heard,) = upstream.heard
    check_heard(heard, "/v1/messages/count_tokens?beta=true", headers, body)
    assert heard.header("accept-encoding") == "gzip, deflate, br, zstd"
    assert heard.header("x-api-key") == CENTRAL_ANTHROPIC
    assert "x-aibridge-interception-id" not in got
    assert records(server) == before


def test_claude_code_looks_models_up(server: Server, upstream: Upstream) -> None:
    listed = b'{"data":[{"id":"claude-opus-4-5","display_name":"Opus"}],"has_more":false}'
    upstream.say(answer(200, listed))
    headers = [
        ("user-agent", "claude-code/2.1.330"),
        ("host", "localhost"),
        ("x-api-key", "sk-ant-own-0123456789"),
    ]
    client = server.connect()
    write(client, "GET", "/anthropic/v1/models?limit=1000", headers)
    assert client.body(client.head()[1]) == (listed, True)
    (heard,) = upstream.heard
    assert (heard.method, heard.target, heard.body) == ("GET", "/v1/models?limit=1000", b"")
    assert heard.header("user-agent") == "claude-code/2.1.330"
    assert heard.header("x-api-key") == "sk-ant-own-0123456789"


def test_claude_code_keeps_one_connection(server: Server, upstream: Upstream) -> None:
    """Turns, counts and errors, one after the other, on the same two connections."""
    client, overloaded = (
        server.connect(),
        b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
    )
    body = claude_body(FIRST_TURN)
    for _ in range(2):
        upstream.say(answer(529, overloaded, "retry-after: 1", "x-should-retry: true"))
        write(client, "POST", CLAUDE, CLAUDE_HEADERS, body)
        status, got = client.head()
        assert (status, client.body(got)) == (529, (overloaded, True))
        assert (got["retry-after"], got["x-should-retry"]) == ("1", "true")
        upstream.say(*streamed(TOOL_ANSWER.answer, 4096))
        write(client, "POST", CLAUDE, CLAUDE_HEADERS, body)
        assert client.body(client.head()[1]) == (TOOL_ANSWER.answer, True)
    assert [heard.body for heard in upstream.heard] == [body] * 4
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


def item(role: str, *said: str) -> Json:
    parts = [{"type": "input_text", "text": one} for one in said]
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
    server: Server, upstream: Upstream, items: list[Json], extra: Headers = [], coded: bool = False
) -> Json:
    plain, headers = codex_body(items), [*CODEX_HEADERS, *extra]
    body = zstandard.compress(plain) if coded else plain
    record = ask(server, upstream, CODEX, headers, body, ITEM_ANSWER)
    heard = upstream.heard[-1]
    check_heard(heard, "/v1/responses", headers, body)
    assert heard.header("host") == f"127.0.0.1:{upstream.port}"
    assert heard.header("accept-encoding") == "identity"
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
    """Neither the developer's words nor the environment are the prompt."""
    record = codex_turn(server, upstream, OPENING)
    check_codex(record)
    assert prompts(record) == ["Weigh ingot № 4\nand note the price of tin."]
    assert record["user_prompts"][0]["provider_response_id"] == "resp_0tin"
    heard = upstream.heard[0]
    assert (heard.header("authorization"), heard.header("x-api-key")) == (CENTRAL_OPENAI, None)


def test_what_codexs_turn_used(server: Server, upstream: Upstream) -> None:
    record = codex_turn(server, upstream, OPENING)
    (usage,) = record["token_usages"]
    assert (usage["provider_response_id"], usage["model"]) == ("resp_0tin", "gpt-5.1-codex")
    assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (1104, 4096)
    assert (usage["output_tokens"], usage["metadata"]) == (410, {"output_reasoning": 256})
    tools = [(one["tool_call_id"], one["item_id"], one["tool"]) for one in record["tool_usages"]]
    assert tools == [
        ("ws_0tin", "ws_0tin", "web_search"),
        ("call_weigh", "fc_0tin", "weigh"),
        ("call_patch", "ctc_0tin", "apply_patch"),
    ]
    assert [one["input"] for one in record["tool_usages"][1:]] == [ITEMS[3]["arguments"], ITEMS[4]["input"]]
    thoughts = [(one["content"], one["metadata"]["source"]) for one in record["model_thoughts"]]
    assert thoughts == [
        ("**Finding the price**\n\nThe market page comes first.", "reasoning_summary"),
        ("**Weighing**\n\nThe scale is a tool.", "reasoning_summary"),
        ("The price is known; I weigh the ingot next.", "commentary"),
    ]


def test_a_header_that_is_not_ascii_passes(server: Server, upstream: Upstream) -> None:
    """The turn's metadata may name a folder; its bytes go on as they came."""
    folder = json.dumps({"cwd": "~/Größen/№ 4"}, ensure_ascii=False).encode().decode("latin-1")
    record = codex_turn(server, upstream, OPENING, [("x-codex-workspace", folder)])
    check_codex(record)


def test_an_empty_header_passes(server: Server, upstream: Upstream) -> None:
    record = codex_turn(server, upstream, OPENING, [("x-codex-parent-thread-id", "")])
    check_codex(record)


def test_codexs_zstd_goes_on_as_it_came(server: Server, upstream: Upstream) -> None:
    """With a login the body is compressed; it is read all the same."""
    extra = [
        ("content-encoding", "zstd"),
        ("chatgpt-account-id", "acct-0042"),
        ("x-codex-routing-hint", "model=gpt-5.1-codex"),
    ]
    record = codex_turn(server, upstream, OPENING, extra, coded=True)
    check_codex(record)
    assert prompts(record) == ["Weigh ingot № 4\nand note the price of tin."]


def test_codexs_outputs_make_a_thread(server: Server, upstream: Upstream) -> None:
    """What the model said goes back with its encrypted reasoning."""
    first = codex_turn(server, upstream, OPENING)
    told = {"type": "function_call_output", "call_id": "call_weigh", "output": "4.2 kg"}
    patched = {"type": "custom_tool_call_output", "call_id": "call_patch", "output": "done"}
    second = codex_turn(server, upstream, [*OPENING, *ITEMS, told, patched])
    assert second["correlating_tool_call_id"] == "call_patch"
    assert (second["thread_parent_id"], second["thread_root_id"]) == (first["id"], first["id"])
    assert second["user_prompts"] == []


@pytest.mark.parametrize("path", [CODEX, "/copilot/responses"])
@pytest.mark.parametrize("protocol", ["websocket", "WebSocket"])
def test_codexs_websocket_is_refused_at_once(
    server: Server, upstream: Upstream, path: str, protocol: str
) -> None:
    """It then goes on over plain HTTP without a pause."""
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
    status, got = client.head()
    told, whole = client.body(got)
    assert (status, got["content-type"], whole) == (426, "application/json", True)
    error = json.loads(told)["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "websocket_not_supported")
    assert got["x-aibridge-interception-id"]
    assert upstream.heard == []
    check_codex(codex_turn(server, upstream, OPENING))


def test_codex_looks_models_up(server: Server, upstream: Upstream) -> None:
    listed = b'{"models":[{"slug":"gpt-5.1-codex"}]}'
    upstream.say(answer(200, listed, 'etag: W/"7"'))
    headers = [*CODEX_HEADERS[5:9], CODEX_HEADERS[-1], ("authorization", "Bearer eyJ.own.0123456789")]
    client = server.connect()
    write(client, "GET", "/openai/v1/models?client_version=0.169.0", [*headers, *FOREIGN])
    status, got = client.head()
    assert (status, client.body(got), got["etag"]) == (200, (listed, True), 'W/"7"')
    (heard,) = upstream.heard
    assert (heard.method, heard.target) == ("GET", "/v1/models?client_version=0.169.0")
    assert heard.header("authorization") == "Bearer eyJ.own.0123456789"
    names = {name for name, _ in passed(headers)}
    assert heard.names() == names | {"host", "authorization"}


def test_codex_keeps_the_providers_pace(server: Server, upstream: Upstream) -> None:
    """Without retry-after a 429 ends its turn for good."""
    refusal = b'{"error":{"message":"slowly","type":"requests","param":null,"code":"rate_limit_exceeded"}}'
    upstream.say(answer(429, refusal, "retry-after: 2", "x-request-id: req_9"))
    client = server.connect()
    write(client, "POST", CODEX, CODEX_HEADERS, codex_body(OPENING))
    status, got = client.head()
    assert (status, client.body(got)) == (429, (refusal, True))
    assert (got["retry-after"], got["x-request-id"]) == ("2", "req_9")
    record = server.record(got["x-aibridge-interception-id"])
    assert (record["error_type"], record["error_message"]) == ("rate_limited", "slowly")
    assert prompts(record) == ["Weigh ingot № 4\nand note the price of tin."]


# Both, behind a proxy of the host's

FORWARDED = {
    "X-Forwarded-For": "10.1.2.3",
    "X-Forwarded-Host": "bridge.example",
    "X-Forwarded-Proto": "https",
    "Forwarded": "for=10.1.2.3",
    "X-Real-IP": "10.1.2.3",
    "Via": "1.1 edge",
}


@pytest.mark.parametrize(("path", "body"), [(CLAUDE, claude_body(FIRST_TURN)), (CODEX, codex_body(OPENING))])
def test_a_proxys_marks_end_here(make_app: MakeApp, upstream: Upstream, path: str, body: bytes) -> None:
    """A host that tells actors by itself may stand behind a proxy; the provider hears nothing of it."""
    app = make_app()
    app.extensions["aibridge"].actor_loader(lambda request: Actor("alice"))
    upstream.say(answer(200, b"{}"))
    headers = {**FORWARDED, **dict(FOREIGN), "X-App": "cli", "Content-Type": "application/json"}
    response = app.test_client().post(PREFIX + path, data=body, headers=headers)
    assert (response.status_code, response.data) == (200, b"{}")
    (heard,) = upstream.heard
    gone = {name.lower() for name in [*FORWARDED, *dict(FOREIGN)]}
    assert heard.names() & gone == set()
    assert (heard.header("x-app"), heard.body) == ("cli", body)


# What streams hold that are written in unusual ways


def replayed(server: Server, upstream: Upstream, name: str, size: int) -> Json:
    exchange = EXCHANGES[name]
    upstream.say(*streamed(exchange.answer, size))
    client = server.connect()
    client.send("POST", exchange.route, exchange.request)
    _, got = client.head()
    assert client.body(got)[1]
    client.close()
    return server.record(got["x-aibridge-interception-id"])


SIZES = pytest.mark.parametrize("size", [0, 1, 5])


@SIZES
def test_an_oddly_written_message_is_read(server: Server, upstream: Upstream, size: int) -> None:
    record = replayed(server, upstream, "anthropic/odd_writing/streaming", size)
    (usage,), (tool,) = record["token_usages"], record["tool_usages"]
    assert (usage["provider_response_id"], usage["input_tokens"], usage["output_tokens"]) == (
        "msg_01Odd",
        11,
        9,
    )
    assert (tool["tool_call_id"], tool["tool"], tool["input"]) == ("toolu_01Odd", "say", '{"word":"ai"}')
    assert (record["error_type"], record["wire_exact"]) == ("", True)


@SIZES
def test_an_oddly_written_completion_is_read(server: Server, upstream: Upstream, size: int) -> None:
    record = replayed(server, upstream, "chatcompletions/odd_writing/streaming", size)
    (usage,), (thought,) = record["token_usages"], record["model_thoughts"]
    assert (usage["provider_response_id"], usage["input_tokens"], usage["output_tokens"]) == (
        "gen-Odd1",
        5,
        6,
    )
    assert (thought["content"], thought["metadata"]) == ("One, two.", {"source": "thinking"})
    assert record["error_type"] == ""


@SIZES
def test_calls_that_come_by_turns_are_read(server: Server, upstream: Upstream, size: int) -> None:
    record = replayed(server, upstream, "chatcompletions/parallel_tools/streaming", size)
    tools = [(one["tool_call_id"], one["tool"], one["input"]) for one in record["tool_usages"]]
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
def test_an_error_in_a_stream_is_the_records(
    server: Server, upstream: Upstream, name: str, type: str
) -> None:
    """The status was 200 long before."""
    record = replayed(server, upstream, name, 5)
    assert (record["status_code"], record["error_type"]) == (200, type)
    assert json.dumps(record["error_message"]).encode() in EXCHANGES[name].answer
