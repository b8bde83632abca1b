"""Answers of MCP servers that come in several streams, elsewhere, or at a length."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable

import pytest

from aibridge_flask.errors import ToolError
from tests.support.mcp import (
    ADD,
    RESULT,
    SECRET,
    SESSION,
    Message,
    ScriptedMcp,
    call,
    event,
    events,
    failure,
    leave_during_call,
    method,
    to_json,
)
from tests.support.server import wait_until
from tests.support.upstream import (
    CLOSE,
    LAST_CHUNK,
    Step,
    Upstream,
    chunk,
    event_stream,
    http_response,
    stream_head,
)
from tests.tools.conftest import Make

BEGINNING = b"id: ev-1\nretry: 50\ndata:\n\n"
PROGRESS = {"method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}}


def response(mcp: ScriptedMcp) -> bytes:
    """The event with the result of the call that was sent last."""
    request = json.loads(mcp.requests("tools/call")[-1].body)
    return event({"id": request["id"], "result": RESULT})


def rest(mcp: ScriptedMcp, *before: Step) -> None:
    """The next GET is answered with the result."""
    mcp.on["GET"].append(lambda _: [*before, *event_stream(response(mcp))])


@pytest.mark.parametrize(
    "first",
    [
        event_stream(BEGINNING),
        event_stream(BEGINNING.replace(b"\n", b"\r\n")),
        event_stream(b"id: ev-0\n\n" + BEGINNING + event(PROGRESS)),
        [stream_head(), chunk(BEGINNING), CLOSE],
        [stream_head(), chunk(BEGINNING), chunk(b"id: ev-2\ndata: {"), CLOSE],
    ],
)
def test_a_stream_that_ends_early_is_continued(mcp: ScriptedMcp, make: Make, first: list[Step]) -> None:
    mcp.enqueue("tools/call", *first)
    rest(mcp)
    assert call(make()) == RESULT
    (resumed,) = mcp.requests("GET")
    assert resumed.header("last-event-id") in ("ev-1", "ev-2")
    assert resumed.header("mcp-session-id") == SESSION
    assert resumed.header("authorization") == f"Bearer {SECRET}"
    assert len(mcp.requests("tools/call")) == 1


def test_a_stream_is_continued_as_often_as_it_ends(mcp: ScriptedMcp, make: Make) -> None:
    mcp.enqueue("tools/call", *event_stream(BEGINNING))
    mcp.enqueue("GET", *event_stream(b"id: ev-2\n" + event(PROGRESS)))
    mcp.enqueue("GET", stream_head(), CLOSE)
    rest(mcp)
    assert call(make()) == RESULT
    assert [received.header("last-event-id") for received in mcp.requests("GET")] == ["ev-1", "ev-2", "ev-2"]


def test_a_handshake_and_a_list_are_continued_too(mcp: ScriptedMcp, make: Make) -> None:
    for name in ("initialize", "tools/list"):

        def begin(request: Message, name: str = name) -> list[Step]:
            answer = {"id": request["id"], "result": {"tools": [ADD]}}
            if name == "initialize":
                answer["result"] = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}
            mcp.enqueue("GET", *events(answer))
            return event_stream(BEGINNING, 0, f"Mcp-Session-Id: {SESSION}")

        mcp.on[name].append(begin)
    assert make().tools() == [ADD]
    assert [received.header("mcp-session-id") for received in mcp.requests("GET")] == [SESSION] * 2


def test_a_stream_without_ids_is_not_continued(mcp: ScriptedMcp, make: Make) -> None:
    mcp.enqueue("tools/call", *event_stream(b"retry: 50\ndata:\n\n"))
    assert failure(make()) == "the MCP server's answer has no response in it"
    assert mcp.requests("GET") == []


@pytest.mark.parametrize("status", [404, 405, 500])
def test_a_server_that_refuses_the_rest(mcp: ScriptedMcp, make: Make, status: int) -> None:
    mcp.enqueue("tools/call", *event_stream(BEGINNING))
    mcp.enqueue("GET", http_response(status, b""))
    assert failure(make()).endswith(f"its rest is refused with status {status}")
    assert len(mcp.requests("tools/call")) == len(mcp.requests("GET")) == 1


@pytest.mark.parametrize("retry", [b"0", b"100", b"600000", b"-1", b"x", b"9" * 400])
def test_the_calls_deadline_holds_for_all_streams_together(
    mcp: ScriptedMcp, make: Make, retry: bytes
) -> None:
    client = make(timeout=0.5)
    client.tools()
    stream = event_stream(BEGINNING.replace(b"50", retry))
    mcp.enqueue("tools/call", *stream)
    mcp.on["GET"].extend([lambda _: stream] * 100)
    assert failure(client) == "the MCP server did not answer in time"
    assert len(mcp.requests("GET")) <= 11
    wait_until(lambda: len(mcp.requests("notifications/cancelled")) == 1)


def test_a_disconnect_ends_the_pause_between_streams(mcp: ScriptedMcp, make: Make) -> None:
    client, sent = make(timeout=600), threading.Event()
    client.tools()
    mcp.enqueue("tools/call", *event_stream(BEGINNING.replace(b"50", b"500000")), lambda _: sent.set())
    leave_during_call(client, sent)
    wait_until(lambda: len(mcp.requests("notifications/cancelled")) == 1)


# Redirects


def redirect(status: int, location: str) -> bytes:
    return http_response(status, b"", f"Location: {location}")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("location", ["/mcp/?a=1", "mcp/?a=1", "?a=1", "{url}/other", "//{host}/x y"])
def test_redirects_within_the_origin_are_followed(
    mcp: ScriptedMcp, make: Make, status: int, location: str
) -> None:
    url = mcp.upstream.url
    mcp.enqueue("tools/call", redirect(status, location.format(url=url, host=url.partition("//")[2])))
    assert call(make()) == RESULT
    first, second = mcp.requests("tools/call")
    assert second.target != first.target
    assert (second.method, second.body, second.headers) == (first.method, first.body, first.headers)


def test_each_message_may_be_redirected(mcp: ScriptedMcp, make: Make) -> None:
    default = mcp.upstream.handler
    mcp.upstream.handler = lambda received: (
        default(received) if received.target == "/mcp/" else [redirect(307, "/mcp/")]
    )
    client = make()
    assert client.tools() == [ADD]
    assert call(client) == RESULT
    client.close(20)
    followed = [method(received) for received in mcp.upstream.requests if received.target == "/mcp/"]
    assert followed == ["initialize", "notifications/initialized", "tools/list", "tools/call", "DELETE"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "prefix", ["http://127.0.0.1:{port}", "//127.0.0.1:{port}", "http://{own}@127.0.0.1:{port}"]
)
def test_credentials_never_go_to_another_origin(
    mcp: ScriptedMcp, make: Make, status: int, prefix: str
) -> None:
    other = Upstream()
    own = mcp.upstream.url.partition("//")[2]
    mcp.enqueue("tools/call", redirect(status, prefix.format(port=other.port, own=own) + "/mcp"))
    assert failure(make()) == f"the MCP server answered with status {status}"
    assert other.requests == []
    other.close()


@pytest.mark.parametrize(
    "location", ["https://127.0.0.1:{port}/mcp", "http://localhost:{port}/", "http://[", "file:///x"]
)
def test_another_scheme_or_name_is_another_origin(mcp: ScriptedMcp, make: Make, location: str) -> None:
    mcp.enqueue("tools/call", redirect(307, location.format(port=mcp.upstream.port)))
    assert failure(make()) == "the MCP server answered with status 307"
    assert len(mcp.requests("tools/call")) == 1


def test_redirects_without_end_are_refused(mcp: ScriptedMcp, make: Make) -> None:
    mcp.on["tools/call"].extend([lambda _: [redirect(308, "/mcp")]] * 100)
    assert failure(make()) == "the MCP server redirects without end"
    assert len(mcp.requests("tools/call")) == 6


# Lists that are too long


def endless(tool: bytes) -> Callable[[Message], list[Step]]:
    """A list that does not end before the client closes the connection."""

    def answer(request: Message) -> list[Step]:
        def send(sock: socket.socket) -> None:
            sock.sendall(stream_head().replace(b"text/event-stream", b"application/json"))
            sock.sendall(chunk(b'{"jsonrpc":"2.0","id":%d,"result":{"tools":[' % request["id"]))
            while True:
                sock.sendall(chunk(b",".join([tool] * 1000) + b","))

        return [send]

    return answer


@pytest.mark.parametrize("tool", [b'{"name":"t"}', to_json({"name": "t", "description": "x" * 5000})])
def test_a_list_is_not_read_beyond_its_limits(mcp: ScriptedMcp, make: Make, tool: bytes) -> None:
    mcp.on["tools/list"].append(endless(tool))
    with pytest.raises(ToolError, match="too large"):
        make().tools()


def test_a_list_of_many_tools_in_one_page_is_refused(mcp: ScriptedMcp, make: Make) -> None:
    for count in (150_000, 3000):
        mcp.tools = [{"name": f"t{i}"} for i in range(count)]
        with pytest.raises(ToolError, match="too large" if count > 100_000 else "more than 2000 tools"):
            make().tools()


def test_the_limits_hold_for_all_pages_together(mcp: ScriptedMcp, make: Make) -> None:
    page = {"tools": [{"name": "t", "description": "x" * 3_000_000}], "nextCursor": "again"}
    mcp.on["tools/list"].extend(
        [lambda request: [http_response(200, to_json({"id": request["id"], "result": page}))]] * 100
    )
    with pytest.raises(ToolError, match="too large"):
        make().tools()
    assert len(mcp.requests("tools/list")) == 4


def test_progress_is_ignored(mcp: ScriptedMcp, make: Make) -> None:
    mcp.on["tools/call"].append(
        lambda request: [
            stream_head(),
            *[chunk(event(PROGRESS))] * 1000,
            chunk(event({"id": request["id"], "result": RESULT})),
            LAST_CHUNK,
        ]
    )
    assert call(make()) == RESULT
