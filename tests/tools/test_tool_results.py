"""Central tools in all formats: odd results, failures of MCP servers, and how both are recorded."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Start
from tests.support.mcp import ScriptedMcp
from tests.support.server import Server
from tests.support.tool_dialects import (
    ADD,
    CALLS,
    CLIENT_CALL,
    ENDS,
    OFFERED_CALL,
    Answer,
    Call,
    ToolDialect,
    outcomes,
)
from tests.support.upstream import WAIT_FOR_CLOSE, Upstream, http_response
from tests.tools.conftest import StartBridge

CANARY = "mcp-canary-0123456789"


def nested(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


def raw_result(json_text: str) -> Callable[[dict[str, Any]], list[bytes]]:
    """A result byte for byte."""
    return lambda request: [
        http_response(200, b'{"jsonrpc":"2.0","id":%d,"result":%s}' % (request["id"], json_text.encode()))
    ]


PICTURE = {"type": "image", "mimeType": "image/png", "data": "A" * 6_000_000}
LONG_TEXT = {"type": "text", "text": "x" * 11_000_000}


@pytest.mark.parametrize(
    ("json_text", "text"),
    [
        (f'{{"structuredContent":{nested(900)}}}', "Error: the MCP server's answer is nested too deeply"),
        (f'{{"structuredContent":{nested(150)}}}', nested(150)),
        ('{"content":{"a":1}}', "Error: the MCP server's result is not one of a tool"),
        ('{"content":[{"type":"text","text":"\\u0000\\ud800"}]}', "\0\ud800"),
        (json.dumps({"content": [PICTURE]}), "[content of type image/png left out]"),
        (json.dumps({"content": [LONG_TEXT]}), "Error: the MCP server's answer is too large"),
    ],
    ids=["deep", "not so deep", "shape", "characters", "picture", "text"],
)
def test_an_odd_result_reaches_the_model(
    api: ToolDialect,
    toolbridge: Server,
    upstream: Upstream,
    docs: ScriptedMcp,
    streaming: bool,
    json_text: str,
    text: str,
) -> None:
    docs.on["tools/call"].append(raw_result(json_text))
    api.enqueue(upstream, streaming, CALLS, ENDS)
    assert toolbridge.post(api.path, api.request(streaming))[::2] == (200, True)
    assert api.tool_results(json.loads(upstream.requests[1].body)) == [("call_1", text)]


def test_a_very_deep_schema_does_not_spoil_every_request(
    api: ToolDialect, start: Start, upstream: Upstream
) -> None:
    tools = f'{{"tools":[{{"name":"odd","inputSchema":{nested(960)}}}]}}'
    with contextlib.closing(Upstream()) as own:
        mcp = ScriptedMcp(own)
        mcp.on["tools/list"].append(raw_result(tools))
        server = start(mcp_servers=[{"name": "docs", "url": mcp.url}]).wait_ready("/readyz")
        api.enqueue(upstream, True, ENDS)
        assert server.post(api.path, api.request(True))[::2] == (200, True)


def test_secrets_in_a_tools_failure_are_masked(
    api: ToolDialect, start_toolbridge: StartBridge, upstream: Upstream, docs: ScriptedMcp
) -> None:
    mcp = {"name": "docs", "url": docs.url, "headers": {"Authorization": {"value": f"Bearer {CANARY}"}}}
    server = start_toolbridge(mcp_servers=[mcp], logs={"records": True, "level": "debug"})

    def refuse(status: int) -> Callable[[dict[str, Any]], list[bytes]]:
        error = {"code": 1, "message": f"no {CANARY}"}
        return lambda request: [
            http_response(
                status, json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error}).encode()
            )
        ]

    docs.on["tools/call"] += [refuse(200), refuse(401)]
    api.enqueue(upstream, True, CALLS, CALLS, ENDS)
    _, body, whole, id = server.post(api.path, api.request(True))
    assert whole
    record = server.record(id)
    assert [error for _, error in outcomes(record)] == [
        "the MCP server refused: no ...",
        "the MCP server answered with status 401: no ...",
    ]
    outputs = [
        body,
        json.dumps(record).encode(),
        server.log.read_bytes(),
        *(received.body for received in upstream.requests),
    ]
    assert not [output for output in outputs if CANARY.encode() in output]


@pytest.mark.parametrize(
    ("content", "words", "seen"),
    [
        ([{"type": "text", "text": "no such page"}], "no such page", "no such page"),
        ([{"type": "text", "text": "Error: a"}, {"type": "text", "text": "b"}], "a\nb", "b"),
        ([], "the tool failed and gave no reason", "gave no reason"),
        ([{"type": "text", "text": "x" * 5000}], "x" * 1000, "x" * 5000),
    ],
)
def test_a_failed_tools_own_words_are_recorded_and_reach_the_model(
    api: ToolDialect,
    toolbridge: Server,
    upstream: Upstream,
    docs: ScriptedMcp,
    content: list[object],
    words: str,
    seen: str,
) -> None:
    docs.on["tools/call"].append(raw_result(json.dumps({"content": content, "isError": True})))
    api.enqueue(upstream, True, CALLS, ENDS)
    id = toolbridge.post(api.path, api.request(True))[3]
    assert outcomes(toolbridge.record(id)) == [("call_1", words)]
    assert seen.encode() in upstream.requests[1].body


def test_each_call_is_recorded_once_with_its_outcome(
    api: ToolDialect, start_toolbridge: StartBridge, upstream: Upstream, docs: ScriptedMcp
) -> None:
    server = start_toolbridge(mcp={"tool_timeout": 0.5}, logs={"records": True})
    docs.on["tools/call"] += [
        lambda request: [WAIT_FOR_CLOSE] if request["params"]["arguments"] else [http_response(500, b"")]
        for _ in range(2)
    ]
    calls = (Call("call_a", ADD, '{"n":1}'), Call("call_b", ADD))
    answers = (Answer("answer_1", calls), Answer("answer_2", (OFFERED_CALL, CLIENT_CALL)))
    api.enqueue(upstream, True, *answers)
    id = server.post(api.path, api.request(True))[3]
    expected = [
        ("call_a", "the MCP server did not answer in time"),
        ("call_b", "the MCP server answered with status 500"),
        ("call_1", "not run: mixed with client tool calls"),
        ("call_2", ""),
    ]
    assert outcomes(server.record(id)) == expected
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    uses = [line for line in lines if line["event"] == "tool_usage"]
    assert sorted((use["tool_call_id"], use["invocation_error"]) for use in uses) == sorted(expected)
