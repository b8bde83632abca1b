"""The MCP client, against a scripted server: what goes over the wire, and what may come back."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme

from aibridge_flask import config
from aibridge_flask.errors import ClientDisconnected, ToolError
from aibridge_flask.tools.mcp import VERSIONS, McpClient
from aibridge_flask.waiting import UNWATCHED, watch
from tests.support.mcp import ADD, SECRET, SESSION, ScriptedMcp, event, events, message, method, result, text
from tests.support.server import PATIENCE, until
from tests.support.upstream import CLOSE, GONE, Step, Upstream, answer, chunk, head, stream_head, streamed

GIVEN = {"content": [{"type": "text", "text": "3"}]}
LIST_CHANGED = {"method": "notifications/tools/list_changed"}
Make = Callable[..., McpClient]


@pytest.fixture
def mcp(upstream: Upstream) -> ScriptedMcp:
    return ScriptedMcp(upstream)


@pytest.fixture
def changes() -> list[bool]:
    """What the client told of changes."""
    return []


@pytest.fixture
def make(mcp: ScriptedMcp, changes: list[bool]) -> Iterator[Make]:
    made: list[McpClient] = []

    def make(url: str = "", timeout: float = 20.0, **settings: object) -> McpClient:
        headers = {"Authorization": {"value": f"Bearer {SECRET}"}, "X-Team": {"value": "blue"}}
        server = {"name": "docs", "url": url or mcp.url, "headers": headers}
        tree = {"mcp_servers": [server], "mcp": {"tool_timeout": timeout}, **settings}
        loaded = config.load(tree)
        made.append(McpClient(loaded.mcp_servers[0], loaded, lambda: changes.append(True)))
        return made[-1]

    yield make
    for client in made:
        client.close(20)


def call(client: McpClient) -> object:
    return client.call("add", {"a": 1}, UNWATCHED)


def failure(client: McpClient) -> str:
    with pytest.raises(ToolError) as caught:
        call(client)
    return caught.value.message


def test_a_session_from_its_beginning_to_its_end(mcp: ScriptedMcp, make: Make) -> None:
    client = make()
    assert client.tools() == [ADD]
    assert call(client) == GIVEN
    client.close(20)
    heard = mcp.upstream.heard
    names = ["initialize", "notifications/initialized", "tools/list", "tools/call", "DELETE"]
    assert [method(one) for one in heard] == names
    assert {one.target for one in heard} == {"/mcp"}
    assert [one.header("mcp-session-id") for one in heard] == [None] + [SESSION] * 4
    assert [one.header("mcp-protocol-version") for one in heard] == [None] + [VERSIONS[0]] * 4
    assert {one.header("authorization") for one in heard} == {f"Bearer {SECRET}"}
    assert {one.header("x-team") for one in heard} == {"blue"}
    assert {one.header("accept") for one in heard} == {"application/json, text/event-stream"}
    assert message(heard[0])["params"]["protocolVersion"] == VERSIONS[0]
    assert set(message(heard[0])["params"]) == {"protocolVersion", "capabilities", "clientInfo"}
    assert message(heard[3])["params"] == {"name": "add", "arguments": {"a": 1}}
    ids = [message(one)["id"] for one in heard if "id" in message(one)]
    assert len(set(ids)) == 3
    assert mcp.upstream.connections == 1


def test_a_server_without_sessions(mcp: ScriptedMcp, make: Make) -> None:
    mcp.session = ""
    client = make()
    assert call(client) == GIVEN
    assert client.listen(lambda: False, 20) is False
    client.close(20)
    assert {one.header("mcp-session-id") for one in mcp.upstream.heard} == {None}
    assert mcp.asked("DELETE") == mcp.asked("GET") == []


def test_a_server_that_has_no_tools_is_not_asked_for_them(mcp: ScriptedMcp, make: Make) -> None:
    mcp.on["initialize"].append(
        lambda asked: [result(asked, {"protocolVersion": VERSIONS[0], "capabilities": {"prompts": {}}})]
    )
    assert make().tools() == []
    assert mcp.asked("tools/list") == []


@pytest.mark.parametrize("version", VERSIONS)
def test_a_servers_older_version_is_taken(mcp: ScriptedMcp, make: Make, version: str) -> None:
    mcp.version = version
    assert make().tools() == [ADD]
    assert mcp.asked("tools/list")[0].header("mcp-protocol-version") == version


def test_a_version_that_we_do_not_know_is_refused(mcp: ScriptedMcp, make: Make) -> None:
    mcp.version = "1999-01-01"
    assert failure(make()) == "the MCP server speaks protocol version 1999-01-01 only"
    assert mcp.asked("tools/call") == []


BETWEEN = {"method": "notifications/message", "params": {"level": "info", "data": "x"}}


@pytest.mark.parametrize(
    "answers",
    [
        lambda ours: [answer(200, text(ours), kind="Application/JSON; charset=utf-8")[:-1], b"}"],
        lambda ours: [head(200, "Transfer-Encoding: chunked"), chunk(text(ours)), b"0\r\n\r\n"],
        lambda ours: [head(200, "Connection: close"), text(ours), CLOSE],
        lambda ours: [answer(200, text([BETWEEN, ours]))],
        lambda ours: events(ours),
        lambda ours: events(BETWEEN, BETWEEN, ours),
        lambda ours: events([BETWEEN, ours]),
        lambda ours: events({"id": 99999, "result": {}}, {"id": "1", "result": {}}, ours, BETWEEN),
        lambda ours: events({"id": None, "result": {}}, ours),
        lambda ours: streamed(b"id: 1\nretry: 10\ndata: \n\n: hello\n\nevent: ping\ndata: x\n\n" + event(ours), 1),
        lambda ours: streamed(event(ours).replace(b"\n", b"\r\n"), 3),
        lambda ours: streamed(b"data:" + text(ours).replace(b", ", b",\ndata: ") + b"\n\n"),
        lambda ours: streamed(event(ours)[:-2]),
        lambda ours: [stream_head(), chunk(event(ours)), CLOSE],
        lambda ours: [stream_head(), chunk(event(ours) + b"data: {\n\n"), b"0\r\n\r\n"],
    ],
)  # fmt: skip
def test_answers_in_many_ways(mcp: ScriptedMcp, make: Make, answers: Callable[[object], list[Step]]) -> None:
    client = make()
    client.tools()
    mcp.on["tools/call"].append(lambda asked: answers({"id": asked["id"], "result": GIVEN}))
    assert call(client) == GIVEN
    assert call(client) == GIVEN


def test_a_stream_that_stays_open_after_the_response_is_left(mcp: ScriptedMcp, make: Make) -> None:
    client = make(timeout=600)
    client.tools()
    mcp.on["tools/call"].append(
        lambda asked: [stream_head(), chunk(event({"id": asked["id"], "result": GIVEN})), GONE]
    )
    with ThreadPoolExecutor() as pool:
        assert pool.submit(call, client).result(PATIENCE) == GIVEN
    assert mcp.upstream.gone.wait(PATIENCE)


def test_what_a_server_asks_meanwhile_is_answered(mcp: ScriptedMcp, make: Make, changes: list[bool]) -> None:
    client = make()
    answered = threading.Event()

    def ask(asked: dict[str, object]) -> list[Step]:
        questions = (
            {"id": "q1", "method": "ping"},
            {"id": 2, "method": "sampling/createMessage", "params": {}},
            LIST_CHANGED,
        )
        ours = event({"id": asked["id"], "result": GIVEN})
        return [stream_head(), chunk(b"".join(map(event, questions))), answered, chunk(ours), b"0\r\n\r\n"]

    mcp.on["tools/call"].append(ask)
    with ThreadPoolExecutor() as pool:
        called = pool.submit(call, client)
        until(lambda: len(mcp.asked("reply")) == 2)
        answered.set()
        assert called.result() == GIVEN
    pong, refusal = mcp.asked("reply")
    assert message(pong) == {"jsonrpc": "2.0", "id": "q1", "result": {}}
    assert (message(refusal)["id"], message(refusal)["error"]["code"]) == (2, -32601)
    assert {one.header("mcp-session-id") for one in (pong, refusal)} == {SESSION}
    assert changes == [True]


def test_lists_come_in_pages(mcp: ScriptedMcp, make: Make) -> None:
    for page in range(3):
        more = {"nextCursor": f"page {page + 1}"} if page < 2 else {}
        mcp.on["tools/list"].append(
            lambda asked, page=page, more=more: [result(asked, {"tools": [{"name": f"t{page}"}], **more})]
        )
    assert make().tools() == [{"name": "t0"}, {"name": "t1"}, {"name": "t2"}]
    assert [message(one)["params"] for one in mcp.asked("tools/list")] == [
        {}, {"cursor": "page 1"}, {"cursor": "page 2"},
    ]  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 3000])
def test_a_list_without_end_is_refused(mcp: ScriptedMcp, make: Make, size: int) -> None:
    page = {"tools": [ADD] * size, "nextCursor": "again"}
    mcp.on["tools/list"].extend([lambda asked: [result(asked, page)]] * 1000)
    with pytest.raises(ToolError, match="has no end"):
        make().tools()
    assert len(mcp.asked("tools/list")) == (1 if size == 3000 else 100)
    assert len(mcp.asked("DELETE")) == 1


def test_a_lost_session_is_begun_anew_once_for_all_calls(mcp: ScriptedMcp, make: Make) -> None:
    client = make()
    client.tools()
    mcp.session = "session-2"
    arrived = threading.Barrier(4)

    def lost(asked: object) -> list[Step]:
        arrived.wait(20)
        return [answer(404, b"")]

    mcp.on["tools/call"].extend([lost] * 4)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(call, [client] * 4)) == [GIVEN] * 4
    calls = [one.header("mcp-session-id") for one in mcp.asked("tools/call")]
    assert calls == [SESSION] * 4 + ["session-2"] * 4
    assert len(mcp.asked("initialize")) == 2


def test_a_session_that_another_call_has_renewed_is_used(mcp: ScriptedMcp, make: Make) -> None:
    client = make()
    client.tools()
    renewed = threading.Event()
    mcp.say("tools/call", renewed, answer(404, b""))
    mcp.say("tools/call", answer(404, b""))
    with ThreadPoolExecutor() as pool:
        late = pool.submit(call, client)
        until(lambda: len(mcp.asked("tools/call")) == 1)
        assert call(client) == GIVEN
        renewed.set()
        assert late.result() == GIVEN
    assert len(mcp.asked("initialize")) == 2


def test_a_session_that_is_lost_again_is_an_error(mcp: ScriptedMcp, make: Make) -> None:
    client = make()
    mcp.on["tools/call"].extend([lambda asked: [answer(404, b"")]] * 2)
    assert failure(client) == "the MCP server has ended the session"
    assert len(mcp.asked("tools/call")) == 2
    assert call(client) == GIVEN


def test_a_failed_list_ends_the_session(mcp: ScriptedMcp, make: Make) -> None:
    """Some servers answer 400 for the session of their former life."""
    client = make()
    client.tools()
    mcp.say("tools/list", answer(400, b'{"error":{"message":"No valid session ID"}}'))
    with pytest.raises(ToolError, match="status 400: No valid session ID"):
        client.tools()
    assert client.tools() == [ADD]
    assert len(mcp.asked("initialize")) == 2


HUGE = b"x" * (11 << 20)


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([answer(500, b"boom " + SECRET.encode())], "answered with status 500"),
        ([answer(401, text({"error": {"message": f"no: Bearer {SECRET}"}}))], "answered with status 401: no: ..."),
        ([answer(403, text({"error": {"message": f"not {SECRET} blue"}}))], "status 403: not ... ..."),
        ([answer(307, b"", "Location: /elsewhere")], "answered with status 307"),
        ([answer(202, b"", kind="")], "neither JSON nor an event stream"),
        ([answer(200, b"<html>", kind="text/html")], "neither JSON nor an event stream"),
        ([answer(200, b"{")], "is not JSON"),
        ([answer(200, b"\xff\xfe")], "is not JSON"),
        ([answer(200, b"[" * 100_000)], "is not JSON"),
        ([answer(200, b"")], "is not JSON"),
        ([answer(200, b'["x"]')], "is not JSON-RPC"),
        ([answer(200, b"3")], "is not JSON-RPC"),
        ([answer(200, b"{}")], "no response in it"),
        ([answer(200, text({"id": 99999, "result": GIVEN}))], "no response in it"),
        (events(BETWEEN, {"id": "x", "result": GIVEN}), "no response in it"),
        (streamed(b""), "no response in it"),
        (streamed(b"data: {\n\n"), "is not JSON"),
        ([answer(200, text({"id": None, "error": {"code": -32700, "message": SECRET}}))], "refused: ..."),
        ([head(200, f"Content-Length: {len(HUGE)}"), HUGE], "too large"),
        ([stream_head(), *[chunk(b"data: " + HUGE[: 1 << 20])] * 11], "too large"),
        ([head(200, "Content-Length: 9"), b"{", CLOSE], "broke off"),
        ([stream_head(), chunk(b": hello\n\n"), CLOSE], "broke off"),
        ([b"SSH-2.0-x\r\n", CLOSE], "could not be reached"),
        ([CLOSE], "could not be reached"),
    ],
)  # fmt: skip
def test_failures_are_told_and_the_next_call_goes_well(
    mcp: ScriptedMcp, make: Make, steps: list[Step], told: str
) -> None:
    client = make()
    client.tools()
    mcp.say("tools/call", *steps)
    error = failure(client)
    assert told in error
    assert SECRET not in error
    assert len(mcp.asked("tools/call")) == 1  # never twice: it may have done its work
    assert call(client) == GIVEN


@pytest.mark.parametrize(
    ("response", "told"),
    [
        ({"error": {"code": -32602, "message": "Unknown tool"}}, "the MCP server refused: Unknown tool"),
        ({"error": {"code": 1, "message": f"{SECRET}!" * 500}}, "the MCP server refused: ...!...!"),
        ({"error": "odd"}, "the MCP server refused: "),
        ({"result": []}, "the MCP server's response has no result in it"),
        ({}, "the MCP server's response has no result in it"),
    ],
)
def test_errors_of_the_server(mcp: ScriptedMcp, make: Make, response: object, told: str) -> None:
    client = make()
    mcp.on["tools/call"].append(lambda asked: [answer(200, text({"id": asked["id"], **response}))])
    error = failure(client)
    assert error.startswith(told)
    assert len(error) <= 1000


def test_what_is_not_a_call_is_sent_again_where_a_pooled_connection_is_dead(
    mcp: ScriptedMcp, make: Make
) -> None:
    client = make()
    client.tools()
    mcp.say("tools/list", CLOSE)
    assert client.tools() == [ADD]
    assert len(mcp.asked("initialize")) == 1


def test_a_server_that_is_away(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert failure(make(f"http://127.0.0.1:{port}/mcp")) == "the MCP server could not be reached"


def test_no_secret_is_shown(make: Make) -> None:
    client = make()
    client.tools()
    shown = " ".join(map(repr, (client, *vars(client).values())))
    assert SECRET not in shown
    assert SESSION not in shown


def drip(asked: object) -> Iterator[Step]:
    """Bytes without end, each well within any time between two of them."""
    yield stream_head()
    while True:
        threading.Event().wait(0.05)
        yield chunk(b": wait\n\n")


def drip_head(asked: object) -> Iterator[Step]:
    yield b"HTTP/1.1 200 X\r\nX-Slow: "
    while True:
        threading.Event().wait(0.05)
        yield b"x"


@pytest.mark.parametrize("slow", [lambda asked: [GONE], lambda asked: [stream_head(), GONE], drip, drip_head])
def test_a_call_has_one_time_limit_and_is_cancelled(
    mcp: ScriptedMcp, make: Make, slow: Callable[[object], list[Step]]
) -> None:
    client = make(timeout=0.4)
    client.tools()
    mcp.on["tools/call"].append(slow)
    assert failure(client) == "the MCP server did not answer in time"
    until(lambda: len(mcp.asked("notifications/cancelled")) == 1)
    (cancelled,) = mcp.asked("notifications/cancelled")
    assert message(cancelled)["params"]["requestId"] == message(mcp.asked("tools/call")[0])["id"]
    assert cancelled.header("mcp-session-id") == SESSION
    assert call(client) == GIVEN


def test_a_client_that_leaves_ends_the_call(mcp: ScriptedMcp, make: Make) -> None:
    client = make()
    client.tools()
    said = threading.Event()
    mcp.say("tools/call", stream_head(), chunk(b": wait\n\n"), lambda _: said.set(), GONE)
    ours, theirs = socket.socketpair()
    with ours, theirs, ThreadPoolExecutor() as pool:
        called = pool.submit(client.call, "add", {}, watch(ours))
        assert said.wait(20)
        theirs.close()
        with pytest.raises(ClientDisconnected):
            called.result()
    assert mcp.upstream.gone.wait(20)
    until(lambda: len(mcp.asked("notifications/cancelled")) == 1)


def test_many_calls_go_on_side_by_side(mcp: ScriptedMcp, make: Make) -> None:
    client = make()
    together = threading.Barrier(8)

    def meet(asked: dict[str, object]) -> list[Step]:
        together.wait(20)
        return [result(asked, {"content": [asked["params"]]})]

    mcp.on["tools/call"].extend([meet] * 8)
    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(lambda n: client.call("add", {"n": n}, UNWATCHED), range(8)))
    assert [one["content"][0]["arguments"] for one in given] == [{"n": n} for n in range(8)]
    assert len(mcp.asked("initialize")) == 1


def test_what_the_server_says_by_itself_is_heard(mcp: ScriptedMcp, make: Make, changes: list[bool]) -> None:
    client = make()
    client.tools()
    mcp.say("GET", *events(BETWEEN, LIST_CHANGED, {"id": 7, "method": "ping"}))
    assert client.listen(lambda: False, 20) is True
    assert changes == [True]
    assert message(mcp.asked("reply")[0])["id"] == 7
    assert client.listen(lambda: False, 20) is False  # 405


@pytest.mark.parametrize("steps", [(GONE,), (stream_head(), GONE)])
def test_listening_ends_when_somebody_is_wanted(
    mcp: ScriptedMcp, make: Make, steps: tuple[Step, ...]
) -> None:
    client = make()
    client.tools()
    mcp.say("GET", *steps)
    wanted = threading.Event()
    with ThreadPoolExecutor() as pool:
        listening = pool.submit(client.listen, wanted.is_set, 600)
        until(lambda: len(mcp.asked("GET")) == 1)
        wanted.set()
        assert listening.result() is True
    assert mcp.upstream.gone.wait(20)


def test_https_with_an_authority_of_the_settings(tmp_path: Path, make: Make) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    secure = Upstream(context)
    mcp = ScriptedMcp(secure)
    assert failure(make(mcp.url)) == "the MCP server could not be reached"
    assert call(make(mcp.url, ca_file=str(tmp_path / "ca.pem"))) == GIVEN
    secure.close()


def test_a_proxy_leads_out_and_not_back(mcp: ScriptedMcp, make: Make) -> None:
    assert make("http://docs.test/mcp", proxy=mcp.upstream.url).tools() == [ADD]
    assert {one.target for one in mcp.upstream.heard} == {"http://docs.test/mcp"}
    assert make(proxy="http://127.0.0.1:9").tools() == [ADD]
