"""MCP servers of all revisions: with and without a handshake, with tools announced or not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from aibridge_flask.errors import ToolError
from aibridge_flask.tools.session import VERSIONS
from aibridge_flask.waiting import UNWATCHED
from tests.support.mcp import (
    ADD,
    RESULT,
    SECRET,
    Message,
    ScriptedMcp,
    call,
    failure,
    message,
    method,
    result,
    to_json,
)
from tests.support.server import wait_until
from tests.support.upstream import Step, http_response
from tests.tools.conftest import Make

STATELESS = "2026-07-28"
META = "io.modelcontextprotocol/"
FORMS = {"prompts": {}}
DISCOVERED = {"supportedVersions": [STATELESS], "capabilities": {"tools": {}}, "resultType": "complete"}


def refusal(
    request: Message, status: int = 200, code: int = -32601, words: str = "Method not found"
) -> bytes:
    body = to_json({"id": request.get("id"), "error": {"code": code, "message": words}})
    return http_response(status, body)


def without_handshake(mcp: ScriptedMcp, answer: Callable[[Message], Step]) -> None:
    """Makes the server one of the stateless revision, which answers `initialize` so."""
    mcp.session = ""
    mcp.on["initialize"].extend([lambda request: [answer(request)]] * 9)
    mcp.on["server/discover"].extend([lambda request: [result(request, DISCOVERED)]] * 9)


NO_HANDSHAKES = pytest.mark.parametrize(
    "answer",
    [
        refusal,
        lambda request: refusal(request, 404),
        lambda request: refusal(request, 400, -32020, "Mcp-Method is missing"),
        lambda request: refusal(request, 400, -32022, "Unsupported protocol version"),
        lambda request: refusal(request, 200, -32602, "Invalid params"),
        lambda request: http_response(400, b"", kind="text/plain"),
        lambda request: http_response(405, b"", kind="text/plain"),
        lambda request: http_response(202, b"", kind=""),
        lambda request: http_response(200, b"{}"),
        lambda request: result(request, {"protocolVersion": STATELESS, "capabilities": {"tools": {}}}),
    ],
)


@NO_HANDSHAKES
def test_a_server_without_a_handshake(
    mcp: ScriptedMcp, make: Make, answer: Callable[[Message], Step]
) -> None:
    without_handshake(mcp, answer)
    client = make()
    assert client.tools() == [ADD]
    assert call(client) == RESULT
    client.close(20)
    assert len(mcp.requests("initialize")) == 1
    listed, called = mcp.requests("tools/list")[-1], mcp.requests("tools/call")[0]
    for received in (listed, called):
        meta = message(received)["params"]["_meta"]
        assert set(meta) == {
            f"{META}{name}" for name in ("protocolVersion", "clientInfo", "clientCapabilities")
        }
        assert received.header("mcp-protocol-version") == meta[f"{META}protocolVersion"] == STATELESS
        assert received.header("mcp-method") == method(received)
        assert received.header("mcp-session-id") is None
    assert (listed.header("mcp-name"), called.header("mcp-name")) == (None, "add")
    assert message(called)["params"]["arguments"] == {"a": 1}
    assert mcp.requests("notifications/initialized") == mcp.requests("DELETE") == mcp.requests("GET") == []


def test_a_server_without_a_handshake_need_not_tell_what_it_is(mcp: ScriptedMcp, make: Make) -> None:
    without_handshake(mcp, refusal)
    mcp.on["server/discover"].clear()
    mcp.on["server/discover"].append(lambda request: [refusal(request, 404)])
    client = make()
    assert client.tools() == [ADD]
    assert call(client) == RESULT


@pytest.mark.parametrize("status", [400, 404])
def test_a_server_that_refuses_everything_is_cited(mcp: ScriptedMcp, make: Make, status: int) -> None:
    for name in ("initialize", "server/discover", "tools/list"):
        mcp.on[name].append(lambda request, name=name: [refusal(request, status, -32000, f"no {name}")])
    assert failure(make()) == f"the MCP server answered with status {status}: no initialize"


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_a_failed_handshake_is_not_taken_for_a_revision(mcp: ScriptedMcp, make: Make, status: int) -> None:
    mcp.enqueue("initialize", http_response(status, b""))
    assert failure(make()) == f"the MCP server answered with status {status}"
    assert len(mcp.upstream.requests) == 1


def test_an_upgraded_server_is_found_again(mcp: ScriptedMcp, make: Make) -> None:
    client = make()
    client.tools()
    without_handshake(mcp, refusal)
    mcp.enqueue("tools/call", http_response(404, b""))
    assert call(client) == RESULT
    assert mcp.requests("tools/call")[1].header("mcp-protocol-version") == STATELESS


def test_parameters_are_repeated_in_headers_where_the_tool_wants_it(mcp: ScriptedMcp, make: Make) -> None:
    def parameter(kind: str, header: object) -> Message:
        return {"type": kind, "x-mcp-header": header}

    without_handshake(mcp, refusal)
    inner = {"type": "object", "properties": {"on": parameter("boolean", "On")}}
    marked = {"a": parameter("string", "Region"), "n": parameter("integer", "N"), "inner": inner}
    spoilt = [parameter("number", "X"), parameter("string", ""), parameter("string", "a\r\nb")]
    mcp.tools = [
        {"name": "ädd", "inputSchema": {"type": "object", "properties": {**marked, "b": {"type": "string"}}}},
        *({"name": f"t{i}", "inputSchema": {"properties": {"x": mark}}} for i, mark in enumerate(spoilt)),
        {"name": "twice", "inputSchema": {"properties": {x: parameter("string", x) for x in ("q", "Q")}}},
    ]
    client = make()
    assert [tool["name"] for tool in client.tools()] == ["ädd"]
    client.call("ädd", {"a": "Zürich", "n": 7, "b": "x", "inner": {"on": True}}, UNWATCHED)
    client.call("ädd", {"a": "us-west1", "n": None}, UNWATCHED)
    first, second = mcp.requests("tools/call")
    assert first.header("mcp-name") == "=?base64?w6RkZA==?="
    named = [
        [received.header(f"mcp-param-{name}") for name in ("region", "n", "on")]
        for received in (first, second)
    ]
    assert named == [["=?base64?WsO8cmljaA==?=", "7", "true"], ["us-west1", None, None]]


def test_a_call_that_asks_for_input_fails(mcp: ScriptedMcp, make: Make) -> None:
    without_handshake(mcp, refusal)
    asks = {"resultType": "input_required", "inputRequests": {"q": {"method": "elicitation/create"}}}
    mcp.on["tools/call"].append(lambda request: [result(request, asks)])
    assert failure(make()) == "the tool asks for more input, which nobody can give"


# Tools that are announced or not


@pytest.mark.parametrize("capabilities", [{}, FORMS, None, [], {"tools": None}])
def test_tools_need_not_be_announced(mcp: ScriptedMcp, make: Make, capabilities: object) -> None:
    told = {"protocolVersion": VERSIONS[0], "capabilities": capabilities}
    mcp.on["initialize"].append(lambda request: [result(request, told)])
    assert make().tools() == [ADD]


@pytest.mark.parametrize("status", [200, 400, 404])
def test_a_server_without_tools_has_none(mcp: ScriptedMcp, make: Make, status: int) -> None:
    told = {"protocolVersion": VERSIONS[0], "capabilities": FORMS}
    mcp.on["initialize"].append(lambda request: [result(request, told, "Mcp-Session-Id: session-1")])
    mcp.on["tools/list"].append(lambda request: [refusal(request, status)])
    assert make().tools() == []
    assert len(mcp.requests("initialize")) == 1


def test_a_server_that_refuses_to_list_announced_tools_is_down(mcp: ScriptedMcp, make: Make) -> None:
    mcp.on["tools/list"].append(lambda request: [refusal(request)])
    with pytest.raises(ToolError, match="refused: Method not found"):
        make().tools()


# Lost sessions

LOST = [
    (404, -32001, "Session not found"),
    (400, -32000, "Bad Request: No valid session ID provided"),
    (400, -32000, "Bad Request: Server not initialized"),
    (400, -32600, "Session terminated"),
]


@pytest.mark.parametrize(("status", "code", "words"), LOST)
def test_a_lost_session_is_begun_again(
    mcp: ScriptedMcp, make: Make, status: int, code: int, words: str
) -> None:
    client = make()
    client.tools()
    mcp.session = "session-2"
    mcp.on["tools/call"].append(lambda request: [refusal(request, status, code, words)])
    assert call(client) == RESULT
    assert mcp.requests("tools/call")[1].header("mcp-session-id") == "session-2"
    assert len(mcp.requests("initialize")) == 2


@pytest.mark.parametrize("body", [b"", b"Invalid session", b"{}"])
def test_a_lost_session_may_be_told_without_json_rpc(mcp: ScriptedMcp, make: Make, body: bytes) -> None:
    client = make()
    client.tools()
    mcp.enqueue("tools/call", http_response(400, body, kind="text/plain"))
    assert call(client) == RESULT
    assert len(mcp.requests("initialize")) == 2


def test_a_session_is_begun_again_once(mcp: ScriptedMcp, make: Make) -> None:
    mcp.on["tools/call"].extend([lambda request: [refusal(request, 400, -32000, "no")]] * 2)
    assert failure(make()) == "the MCP server answered with status 400: no"
    assert len(mcp.requests("tools/call")) == len(mcp.requests("initialize")) == 2


@pytest.mark.parametrize("code", [-32700, -32601, -32602])
@pytest.mark.parametrize("status", [400, 404])
def test_a_refused_message_is_no_lost_session(mcp: ScriptedMcp, make: Make, status: int, code: int) -> None:
    mcp.on["tools/call"].append(lambda request: [refusal(request, status, code, "Unknown tool")])
    assert failure(make()) == f"the MCP server answered with status {status}: Unknown tool"
    assert len(mcp.requests("tools/call")) == len(mcp.requests("initialize")) == 1


def test_members_of_newer_revisions_are_ignored(mcp: ScriptedMcp, make: Make) -> None:
    tool = {
        **ADD,
        "title": "Add",
        "annotations": {"readOnlyHint": True},
        "outputSchema": {"type": "object"},
        "icons": [{"src": "https://example.test/a.png"}],
        "execution": {"taskSupport": "optional"},
        "_meta": {"x": 1},
    }
    mcp.tools = [tool]
    client = make()
    assert client.tools() == [tool]
    assert call(client) == RESULT
    wait_until(lambda: len(mcp.requests("tools/call")) == 1)


def test_a_failed_tools_own_words_are_kept_without_secrets(mcp: ScriptedMcp, make: Make) -> None:
    told = {"isError": True, "content": [{"type": "text", "text": f"no {SECRET} for you"}, {"type": "image"}]}
    mcp.on["tools/call"].append(lambda request: [result(request, told)])
    assert call(make()) == {
        **told,
        "content": [{"type": "text", "text": "no ... for you"}, {"type": "image"}],
    }
