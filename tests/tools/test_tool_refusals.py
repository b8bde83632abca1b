"""Upstreams that refuse what the bridge adds to a request: tools, and the wish for a stream's usage."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Start
from tests.support.mcp import ScriptedMcp
from tests.support.server import Server
from tests.support.tool_dialects import ADD, CHAT, ENDS, ToolDialect
from tests.support.upstream import Upstream, http_response
from tests.tools.conftest import StartBridge

NO_TOOLS = b'{"error":{"message":"this model takes no tools","type":"invalid_request_error"}}'
NO_OPTIONS = b'{"error":{"message":"stream_options: extra fields not permitted"}}'
CLIENT_ERROR = b'{"error":{"message":"messages: field required"}}'


def has_tool(body: bytes) -> bool:
    return ADD.encode() in body


@pytest.mark.parametrize("status", [400, 422])
def test_a_model_that_takes_no_tools_gets_the_clients_own_body(
    api: ToolDialect, toolbridge: Server, upstream: Upstream, streaming: bool, status: int
) -> None:
    model = f"toolless-{api}-{status}-{streaming}"
    request = api.request(streaming, model=model)
    upstream.enqueue(http_response(status, NO_TOOLS))
    api.enqueue(upstream, streaming, ENDS, ENDS)
    answers = [toolbridge.post(api.path, request) for _ in range(2)]
    assert [answer[0] for answer in answers] == [200, 200]
    assert api.read(answers[0][1], streaming).text == ENDS.text
    assert [has_tool(received.body) for received in upstream.requests] == [True, False, False]
    assert [received.body for received in upstream.requests][1] == request
    record = toolbridge.record(answers[0][3])
    assert (record["status_code"], record["error_type"], record["wire_exact"]) == (200, "", True)
    assert f"model '{model}' of {api.provider} refuses tools" in toolbridge.log.read_text()


def test_a_request_that_is_refused_either_way_turns_tools_off_for_nobody(
    api: ToolDialect, toolbridge: Server, upstream: Upstream, streaming: bool
) -> None:
    upstream.enqueue(http_response(400, NO_TOOLS))
    upstream.enqueue(http_response(400, CLIENT_ERROR))
    api.enqueue(upstream, streaming, ENDS)
    model = f"careful-{api}-{streaming}"
    status, body, _, id = toolbridge.post(api.path, api.request(streaming, model=model))
    assert (status, body) == (400, CLIENT_ERROR)
    assert toolbridge.record(id)["error_message"] == "messages: field required"
    assert toolbridge.post(api.path, api.request(streaming, model=model))[0] == 200
    assert [has_tool(received.body) for received in upstream.requests] == [True, False, True]


def test_a_body_that_was_not_changed_is_sent_once(
    api: ToolDialect, server: Server, upstream: Upstream
) -> None:
    upstream.enqueue(http_response(400, CLIENT_ERROR))
    status, body, _, _ = server.post(api.path, api.request(False))
    assert (status, body) == (400, CLIENT_ERROR)
    assert len(upstream.requests) == 1


def test_an_upstream_that_refuses_stream_options_still_gets_tools(
    toolbridge: Server, upstream: Upstream
) -> None:
    request = CHAT.request(True, model="optionless")
    request = json.dumps({**json.loads(request), "stream_options": None}).encode()
    upstream.enqueue(http_response(400, NO_OPTIONS))
    CHAT.enqueue(upstream, True, ENDS, ENDS)
    for _ in range(2):
        assert toolbridge.post(CHAT.path, request)[0] == 200
    bodies = [received.body for received in upstream.requests]
    assert [has_tool(body) for body in bodies] == [True, False, True]
    assert [b"include_usage" in body for body in bodies] == [True, False, False]
    assert bodies[1] == request


def test_usage_is_not_asked_for_where_the_settings_say_so(start: Start, upstream: Upstream) -> None:
    provider = {"type": "openai", "base_url": f"{upstream.url}/v1", "force_usage": False}
    bridge = start(providers=[provider]).wait_ready("/readyz")
    request = json.dumps({**json.loads(CHAT.request(True)), "stream_options": None}).encode()
    CHAT.enqueue(upstream, True, ENDS)
    status, body, _, id = bridge.post(CHAT.path, request, Authorization="Bearer sk-own-0123456789")
    assert (status, body) == (200, CHAT.stream(ENDS))
    assert upstream.requests[0].body == request
    assert bridge.record(id)["wire_exact"] is True


@pytest.fixture
def picky(docs: ScriptedMcp) -> ScriptedMcp:
    """A server with tools that some API refuses, beside `add`."""
    names = {"a b": {"type": "string"}}
    docs.tools += [
        {
            "name": "either",
            "inputSchema": {"anyOf": [{"type": "object", "properties": {"x": {"type": "array"}}}]},
        },
        {"name": "spaced", "inputSchema": {"type": "object", "properties": names}},
        {"name": "text", "inputSchema": {"type": "string"}},
    ]
    return docs


def test_tools_come_in_the_apis_shape_or_are_left_out_with_one_warning(
    api: ToolDialect, picky: ScriptedMcp, start_toolbridge: StartBridge, upstream: Upstream
) -> None:
    provider = {"type": api.provider, "base_url": upstream.url + api.base_path, "keys": [{"value": "sk-1"}]}
    bridge = start_toolbridge(providers=[provider])
    api.enqueue(upstream, False, ENDS, ENDS)
    for _ in range(2):
        assert bridge.post(api.path, api.request(False))[0] == 200
    offered = json.loads(upstream.requests[0].body)["tools"]
    names = {tool.get("name") or tool["function"]["name"] for tool in offered}
    spaced = set() if api.provider == "anthropic" else {"bmcp_docs_spaced"}
    assert {name for name in names if name.startswith("bmcp_")} == {ADD, "bmcp_docs_either", *spaced}
    log = bridge.log.read_text()
    left_out = {"text", "spaced"} if api.provider == "anthropic" else {"text"}
    for name in ("text", "spaced"):
        assert log.count(f"tool {name} of MCP server docs is left out") == (name in left_out)


def test_openais_apis_get_as_many_tools_as_they_take(
    api: ToolDialect, docs: ScriptedMcp, start_toolbridge: StartBridge, upstream: Upstream
) -> None:
    docs.tools += [{"name": f"t{number:02}", "inputSchema": {"type": "object"}} for number in range(39)]
    provider = {"type": api.provider, "base_url": upstream.url + api.base_path, "keys": [{"value": "sk-1"}]}
    bridge = start_toolbridge(providers=[provider])
    own = [{"type": "function", "name": f"own{number}"} for number in range(100)]
    for count in (100, 88):
        api.enqueue(upstream, False, ENDS)
        assert bridge.post(api.path, api.request(False, tools=own[:count]))[0] == 200
    sent = [len(json.loads(received.body)["tools"]) for received in upstream.requests]
    assert sent == ([140, 128] if api.provider == "anthropic" else [128, 128])
