"""The MCP client against a scripted server: the requests it sends, and the answers it copes with."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme

from aibridge_flask.errors import ToolError
from aibridge_flask.tools.session import VERSIONS
from aibridge_flask.waiting import UNWATCHED
from tests.support.mcp import (
    ADD,
    RESULT,
    SECRET,
    SESSION,
    ScriptedMcp,
    call,
    event,
    events,
    failure,
    leave_during_call,
    message,
    method,
    result,
    to_json,
)
from tests.support.server import TIMEOUT_SECONDS, wait_until
from tests.support.upstream import (
    CLOSE,
    WAIT_FOR_CLOSE,
    Step,
    Upstream,
    chunk,
    event_stream,
    head,
    http_response,
    stream_head,
)
from tests.tools.conftest import Make

LIST_CHANGED = {"method": "notifications/tools/list_changed"}


def test_a_session_from_beginning_to_end(mcp: ScriptedMcp, make: Make) -> None:
    client = make()
    assert client.tools() == [ADD]
    assert call(client) == RESULT
    client.close(20)
    received = mcp.upstream.requests
    names = ["initialize", "notifications/initialized", "tools/list", "tools/call", "DELETE"]
    assert [method(request) for request in received] == names
    assert {request.target for request in received} == {"/mcp"}
    assert [request.header("mcp-session-id") for request in received] == [None] + [SESSION] * 4
    assert [request.header("mcp-protocol-version") for request in received] == [None] + [VERSIONS[0]] * 4
    assert {request.header("authorization") for request in received} == {f"Bearer {SECRET}"}
    assert {request.header("x-team") for request in received} == {"blue"}
    assert {request.header("accept") for request in received} == {"application/json, text/event-stream"}
    assert message(received[0])["params"]["protocolVersion"] == VERSIONS[0]
    assert set(message(received[0])["params"]) == {"protocolVersion", "capabilities", "clientInfo"}
    assert message(received[3])["params"] == {"name": "add", "arguments": {"a": 1}}
    ids = [message(request)["id"] for request in received if "id" in message(request)]
    assert len(set(ids)) == 3
    assert mcp.upstream.connections == 1


def test_a_server_without_sessions(mcp: ScriptedMcp, make: Make) -> None:
    mcp.session = ""
    client = make()
    assert call(client) == RESULT
    assert client.listen(lambda: False, 20) is False
    client.close(20)
    assert {request.header("mcp-session-id") for request in mcp.upstream.requests} == {None}
    assert mcp.requests("DELETE") == mcp.requests("GET") == []


@pytest.mark.parametrize("version", VERSIONS)
def test_an_older_version_of_the_server_is_accepted(mcp: ScriptedMcp, make: Make, version: str) -> None:
    mcp.version = version
    assert make().tools() == [ADD]
    assert mcp.requests("tools/list")[0].header("mcp-protocol-version") == version


def test_an_unknown_version_is_refused(mcp: ScriptedMcp, make: Make) -> None:
    mcp.version = "1999-01-01"
    assert failure(make()) == "the MCP server speaks protocol version 1999-01-01 only"
    assert mcp.requests("tools/call") == []


LOG_MESSAGE = {"method": "notifications/message", "params": {"level": "info", "data": "x"}}


@pytest.mark.parametrize(
    "answers",
    [
        lambda response: [http_response(200, to_json(response), kind="Application/JSON; charset=utf-8")[:-1], b"}"],
        lambda response: [head(200, "Transfer-Encoding: chunked"), chunk(to_json(response)), b"0\r\n\r\n"],
        lambda response: [head(200, "Connection: close"), to_json(response), CLOSE],
        lambda response: [http_response(200, to_json([LOG_MESSAGE, response]))],
        lambda response: events(response),
        lambda response: events(LOG_MESSAGE, LOG_MESSAGE, response),
        lambda response: events([LOG_MESSAGE, response]),
        lambda response: events({"id": 99999, "result": {}}, {"id": "1", "result": {}}, response, LOG_MESSAGE),
        lambda response: events({"id": None, "result": {}}, response),
        lambda response: event_stream(b"id: 1\nretry: 10\ndata: \n\n: hello\n\nevent: ping\ndata: x\n\n" + event(response), 1),
        lambda response: event_stream(event(response).replace(b"\n", b"\r\n"), 3),
        lambda response: event_stream(b"data:" + to_json(response).replace(b", ", b",\ndata: ") + b"\n\n"),
        lambda response: event_stream(event(response)[:-2]),
        lambda response: [stream_head(), chunk(event(response)), CLOSE],
        lambda response: [stream_head(), chunk(event(response) + b"data: {\n\n"), b"0\r\n\r\n"],
    ],
)  # fmt: skip
def test_responses_of_any_layout_are_read(
    mcp: ScriptedMcp, make: Make, answers: Callable[[object], list[Step]]
) -> None:
    client = make()
    client.tools()
    mcp.on["tools/call"].append(lambda request: answers({"id": request["id"], "result": RESULT}))
    assert call(client) == RESULT
    assert call(client) == RESULT


def test_a_stream_that_stays_open_after_the_response_is_closed(mcp: ScriptedMcp, make: Make) -> None:
    client = make(timeout=600)
    client.tools()
    mcp.on["tools/call"].append(
        lambda request: [stream_head(), chunk(event({"id": request["id"], "result": RESULT})), WAIT_FOR_CLOSE]
    )
    with ThreadPoolExecutor() as pool:
        assert pool.submit(call, client).result(TIMEOUT_SECONDS) == RESULT
    assert mcp.upstream.peer_closed.wait(TIMEOUT_SECONDS)


def test_requests_of_the_server_are_answered_meanwhile(
    mcp: ScriptedMcp, make: Make, changes: list[bool]
) -> None:
    client = make()
    answered = threading.Event()

    def ask_back(request: dict[str, object]) -> list[Step]:
        messages = (
            {"id": "q1", "method": "ping"},
            {"id": 2, "method": "sampling/createMessage", "params": {}},
            LIST_CHANGED,
        )
        response = event({"id": request["id"], "result": RESULT})
        return [stream_head(), chunk(b"".join(map(event, messages))), answered, chunk(response), b"0\r\n\r\n"]

    mcp.on["tools/call"].append(ask_back)
    with ThreadPoolExecutor() as pool:
        called = pool.submit(call, client)
        wait_until(lambda: len(mcp.requests("reply")) == 2)
        answered.set()
        assert called.result() == RESULT
    pong, refusal = mcp.requests("reply")
    assert message(pong) == {"jsonrpc": "2.0", "id": "q1", "result": {}}
    assert (message(refusal)["id"], message(refusal)["error"]["code"]) == (2, -32601)
    assert {request.header("mcp-session-id") for request in (pong, refusal)} == {SESSION}
    assert changes == [True]


def test_lists_may_have_pages(mcp: ScriptedMcp, make: Make) -> None:
    for page in range(3):
        cursor = {"nextCursor": f"page {page + 1}"} if page < 2 else {}
        mcp.on["tools/list"].append(
            lambda request, page=page, cursor=cursor: [
                result(request, {"tools": [{"name": f"t{page}"}], **cursor})
            ]
        )
    assert make().tools() == [{"name": "t0"}, {"name": "t1"}, {"name": "t2"}]
    assert [message(request)["params"] for request in mcp.requests("tools/list")] == [
        {}, {"cursor": "page 1"}, {"cursor": "page 2"},
    ]  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 3000])
def test_a_list_without_end_is_refused(mcp: ScriptedMcp, make: Make, size: int) -> None:
    page = {"tools": [ADD] * size, "nextCursor": "again"}
    mcp.on["tools/list"].extend([lambda request: [result(request, page)]] * 1000)
    with pytest.raises(ToolError, match="more than 2000 tools" if size == 3000 else "has no end"):
        make().tools()
    assert len(mcp.requests("tools/list")) == (1 if size == 3000 else 100)
    assert len(mcp.requests("DELETE")) == 1


def test_calls_share_the_new_session_after_a_lost_one(mcp: ScriptedMcp, make: Make) -> None:
    client = make()
    client.tools()
    mcp.session = "session-2"
    arrived = threading.Barrier(4)

    def lose_session(request: object) -> list[Step]:
        arrived.wait(20)
        return [http_response(404, b"")]

    mcp.on["tools/call"].extend([lose_session] * 4)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(call, [client] * 4)) == [RESULT] * 4
    calls = [request.header("mcp-session-id") for request in mcp.requests("tools/call")]
    assert calls == [SESSION] * 4 + ["session-2"] * 4
    assert len(mcp.requests("initialize")) == 2


def test_a_call_uses_the_session_that_another_call_renewed(mcp: ScriptedMcp, make: Make) -> None:
    client = make()
    client.tools()
    renewed = threading.Event()
    mcp.enqueue("tools/call", renewed, http_response(404, b""))
    mcp.enqueue("tools/call", http_response(404, b""))
    with ThreadPoolExecutor() as pool:
        late = pool.submit(call, client)
        wait_until(lambda: len(mcp.requests("tools/call")) == 1)
        assert call(client) == RESULT
        renewed.set()
        assert late.result() == RESULT
    assert len(mcp.requests("initialize")) == 2


def test_a_session_that_is_lost_again_is_an_error(mcp: ScriptedMcp, make: Make) -> None:
    client = make()
    mcp.on["tools/call"].extend([lambda request: [http_response(404, b"")]] * 2)
    assert failure(client) == "the MCP server has ended the session"
    assert len(mcp.requests("tools/call")) == 2
    assert call(client) == RESULT


def test_a_failed_list_ends_the_session(mcp: ScriptedMcp, make: Make) -> None:
    client = make()
    client.tools()
    mcp.enqueue("tools/list", http_response(503, b"", "Content-Type: text/plain"))
    with pytest.raises(ToolError, match="status 503"):
        client.tools()
    assert len(mcp.requests("DELETE")) == 1
    assert client.tools() == [ADD]
    assert len(mcp.requests("initialize")) == 2


HUGE = b"x" * (11 << 20)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([http_response(500, b"boom " + SECRET.encode())], "answered with status 500"),
        ([http_response(401, to_json({"error": {"message": f"no: Bearer {SECRET}"}}))], "answered with status 401: no: ..."),
        ([http_response(403, to_json({"error": {"message": f"not {SECRET} blue"}}))], "status 403: not ... ..."),
        ([http_response(307, b"", "Location: http://elsewhere.test/")], "answered with status 307"),
        ([http_response(202, b"", kind="")], "neither JSON nor an event stream"),
        ([http_response(200, b"<html>", kind="text/html")], "neither JSON nor an event stream"),
        ([http_response(200, b"{")], "is not JSON"),
        ([http_response(200, b"\xff\xfe")], "is not JSON"),
        ([http_response(200, b"[" * 100_000)], "is not JSON"),
        ([http_response(200, b"")], "is not JSON"),
        ([http_response(200, b'["x"]')], "is not JSON-RPC"),
        ([http_response(200, b"3")], "is not JSON-RPC"),
        ([http_response(200, b"{}")], "no response in it"),
        ([http_response(200, to_json({"id": 99999, "result": RESULT}))], "no response in it"),
        (events(LOG_MESSAGE, {"id": "x", "result": RESULT}), "no response in it"),
        (event_stream(b""), "no response in it"),
        (event_stream(b"data: {\n\n"), "is not JSON"),
        ([http_response(200, to_json({"id": None, "error": {"code": -32700, "message": SECRET}}))], "refused: ..."),
        ([head(200, f"Content-Length: {len(HUGE)}"), HUGE], "too large"),
        ([stream_head(), *[chunk(b"data: " + HUGE[: 1 << 20])] * 11], "too large"),
        ([head(200, "Content-Length: 9"), b"{", CLOSE], "broke off"),
        ([stream_head(), chunk(b": hello\n\n"), CLOSE], "broke off"),
        ([b"SSH-2.0-x\r\n", CLOSE], "could not be reached"),
        ([CLOSE], "could not be reached"),
    ],
)  # fmt: skip
def test_a_failed_call_has_an_error_and_the_next_call_succeeds(
    mcp: ScriptedMcp, make: Make, steps: list[Step], message: str
) -> None:
    client = make()
    client.tools()
    mcp.enqueue("tools/call", *steps)
    error = failure(client)
    assert message in error
    assert SECRET not in error
    assert len(mcp.requests("tools/call")) == 1  # never twice: the tool may have run
    assert call(client) == RESULT


@pytest.mark.parametrize(
    ("response", "start"),
    [
        ({"error": {"code": -32602, "message": "Unknown tool"}}, "the MCP server refused: Unknown tool"),
        ({"error": {"code": 1, "message": f"{SECRET}!" * 500}}, "the MCP server refused: ...!...!"),
        ({"error": "odd"}, "the MCP server refused: "),
        ({"result": []}, "the MCP server's response has no result in it"),
        ({}, "the MCP server's response has no result in it"),
    ],
)
def test_error_responses_of_the_server(mcp: ScriptedMcp, make: Make, response: object, start: str) -> None:
    client = make()
    mcp.on["tools/call"].append(
        lambda request: [http_response(200, to_json({"id": request["id"], **response}))]
    )
    error = failure(client)
    assert error.startswith(start)
    assert len(error) <= 1000


def test_a_list_is_requested_again_if_the_pooled_connection_is_dead(mcp: ScriptedMcp, make: Make) -> None:
    client = make()
    client.tools()
    mcp.enqueue("tools/list", CLOSE)
    assert client.tools() == [ADD]
    assert len(mcp.requests("initialize")) == 1


def test_a_server_that_cannot_be_reached(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert failure(make(f"http://127.0.0.1:{port}/mcp")) == "the MCP server could not be reached"


def test_no_secret_is_in_the_repr(make: Make) -> None:
    client = make()
    client.tools()
    text = " ".join(map(repr, (client, *vars(client).values())))
    assert SECRET not in text
    assert SESSION not in text


def drip(request: object) -> Iterator[Step]:
    """Sends comments forever, each within any timeout between two reads."""
    yield stream_head()
    while True:
        threading.Event().wait(0.05)
        yield chunk(b": wait\n\n")


def drip_head(request: object) -> Iterator[Step]:
    yield b"HTTP/1.1 200 X\r\nX-Slow: "
    while True:
        threading.Event().wait(0.05)
        yield b"x"


@pytest.mark.parametrize(
    "slow",
    [lambda request: [WAIT_FOR_CLOSE], lambda request: [stream_head(), WAIT_FOR_CLOSE], drip, drip_head],
)
def test_a_call_has_one_time_limit_and_is_cancelled(
    mcp: ScriptedMcp, make: Make, slow: Callable[[object], list[Step]]
) -> None:
    client = make(timeout=0.4)
    client.tools()
    mcp.on["tools/call"].append(slow)
    assert failure(client) == "the MCP server did not answer in time"
    wait_until(lambda: len(mcp.requests("notifications/cancelled")) == 1)
    (cancelled,) = mcp.requests("notifications/cancelled")
    assert message(cancelled)["params"]["requestId"] == message(mcp.requests("tools/call")[0])["id"]
    assert cancelled.header("mcp-session-id") == SESSION
    assert call(client) == RESULT


def test_a_client_disconnect_cancels_the_call(mcp: ScriptedMcp, make: Make) -> None:
    client = make()
    client.tools()
    sent = threading.Event()
    mcp.enqueue("tools/call", stream_head(), chunk(b": wait\n\n"), lambda _: sent.set(), WAIT_FOR_CLOSE)
    leave_during_call(client, sent)
    assert mcp.upstream.peer_closed.wait(20)
    wait_until(lambda: len(mcp.requests("notifications/cancelled")) == 1)


def test_many_calls_run_in_parallel(mcp: ScriptedMcp, make: Make) -> None:
    client = make()
    together = threading.Barrier(8)

    def meet(request: dict[str, object]) -> list[Step]:
        together.wait(20)
        return [result(request, {"content": [request["params"]]})]

    mcp.on["tools/call"].extend([meet] * 8)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: client.call("add", {"n": n}, UNWATCHED), range(8)))
    assert [value["content"][0]["arguments"] for value in results] == [{"n": n} for n in range(8)]
    assert len(mcp.requests("initialize")) == 1


def test_notifications_of_the_server_are_read(mcp: ScriptedMcp, make: Make, changes: list[bool]) -> None:
    client = make()
    client.tools()
    mcp.enqueue("GET", *events(LOG_MESSAGE, LIST_CHANGED, {"id": 7, "method": "ping"}))
    assert client.listen(lambda: False, 20) is True
    assert changes == [True]
    assert message(mcp.requests("reply")[0])["id"] == 7
    assert client.listen(lambda: False, 20) is False  # 405


@pytest.mark.parametrize("steps", [(WAIT_FOR_CLOSE,), (stream_head(), WAIT_FOR_CLOSE)])
def test_listening_ends_when_it_is_stopped(mcp: ScriptedMcp, make: Make, steps: tuple[Step, ...]) -> None:
    client = make()
    client.tools()
    mcp.enqueue("GET", *steps)
    stopped = threading.Event()
    with ThreadPoolExecutor() as pool:
        listening = pool.submit(client.listen, stopped.is_set, 600)
        wait_until(lambda: len(mcp.requests("GET")) == 1)
        stopped.set()
        assert listening.result() is True
    assert mcp.upstream.peer_closed.wait(20)


def test_https_uses_the_configured_ca_file(tmp_path: Path, make: Make) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    secure = Upstream(context)
    mcp = ScriptedMcp(secure)
    assert failure(make(mcp.url)) == "the MCP server could not be reached"
    assert call(make(mcp.url, ca_file=str(tmp_path / "ca.pem"))) == RESULT
    secure.close()


def test_a_proxy_is_used_but_not_for_loopback(mcp: ScriptedMcp, make: Make) -> None:
    assert make("http://docs.test/mcp", proxy=mcp.upstream.url).tools() == [ADD]
    assert {request.target for request in mcp.upstream.requests} == {"http://docs.test/mcp"}
    assert make(proxy="http://127.0.0.1:9").tools() == [ADD]
