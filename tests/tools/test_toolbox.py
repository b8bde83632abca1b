"""The toolbox: which tools there are, their ids, and that a call always has a result."""

from __future__ import annotations

import _thread
import json
import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aibridge_flask import config
from aibridge_flask.model import ToolResult
from aibridge_flask.tools import ToolBox
from aibridge_flask.tools.selection import select_tools
from aibridge_flask.waiting import UNWATCHED
from tests.conftest import MakeApp
from tests.support.mcp import ADD, SECRET, SESSION, ScriptedMcp, event, events, message, method, result
from tests.support.server import PREFIX, ROOT, TIMEOUT_SECONDS, free_port, wait_until
from tests.support.upstream import WAIT_FOR_CLOSE, Step, Upstream, chunk, http_response, stream_head

LIST_CHANGED = {"method": "notifications/tools/list_changed"}
OTHER = {"name": "other"}
Make = Callable[..., ToolBox]


@pytest.fixture
def mcp(upstream: Upstream) -> ScriptedMcp:
    return ScriptedMcp(upstream)


@pytest.fixture
def make(mcp: ScriptedMcp) -> Iterator[Make]:
    """Makes toolboxes; the default has one server, `docs`."""
    boxes: list[ToolBox] = []

    def make(*servers: dict[str, object], ready: bool = True, **mcp_settings: object) -> ToolBox:
        configured = servers or ({"name": "docs", "url": mcp.url},)
        boxes.append(ToolBox(config.load({"mcp_servers": list(configured), "mcp": mcp_settings})))
        wait_until(lambda: boxes[-1].ready or not ready)
        return boxes[-1]

    yield make
    for box in boxes:
        box.close()


def ids(box: ToolBox) -> list[str]:
    return [tool.id for tool in box.tools]


def select(*names: str, server: str = "docs", **settings: str) -> dict[str, str]:
    """Returns the ids of a server's tools by their own names."""
    tree = {"mcp_servers": [{"name": server, "url": "http://127.0.0.1/mcp", **settings}]}
    (configured,) = config.load(tree).mcp_servers
    return {tool.name: tool.id for tool in select_tools(configured, [{"name": name} for name in names])}


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("add", "bmcp_docs_add"),
        ("Add-Two_3", "bmcp_docs_Add-Two_3"),
        ("pages.search/v2", "bmcp_docs_pages_search_v2"),
        ("größe ☃", "bmcp_docs_gr__e__"),
        ("a\nb", "bmcp_docs_a_b"),
        ("x" * 54, "bmcp_docs_" + "x" * 54),
    ],
)
def test_an_id_is_the_plain_name_if_possible(name: str, id: str) -> None:
    assert select(name) == {name: id}


def test_long_ids_are_cut_and_stay_stable_and_distinct() -> None:
    names = ["x" * 55, "x" * 56, "x" * 200 + "a", "x" * 200 + "b"]
    selected = select(*names)
    assert len(set(selected.values())) == 4
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{64}", id) for id in selected.values())
    assert {name: select(name)[name] for name in names} == selected
    assert selected["x" * 55] == "bmcp_docs_" + "x" * 43 + "_da669a82ce"
    long = {server: select("x" * 80, server=server)["x" * 80] for server in ("a" * 90, "a" * 91)}
    assert len({*long.values()}) == 2


def test_tools_that_would_share_an_id_both_get_digests() -> None:
    selected = select("a.b", "a/b", "a_c", "\ud800", "a_b_c")
    assert len(set(selected.values())) == 5
    assert re.fullmatch(r"bmcp_docs_a_b_[0-9a-f]{10}", selected["a.b"])
    assert re.fullmatch(r"bmcp_docs_a_b_[0-9a-f]{10}", selected["a/b"])
    assert (selected["a_c"], selected["a_b_c"]) == ("bmcp_docs_a_c", "bmcp_docs_a_b_c")
    assert select("a/b", "a.b", "more")["a.b"] == selected["a.b"]
    assert select("a.b", "a/b", deny="/") == {"a.b": "bmcp_docs_a_b"}


@pytest.mark.parametrize(
    ("settings", "selected"),
    [
        ({}, {"read", "reread", "write"}),
        ({"allow": "read"}, {"read", "reread"}),
        ({"allow": "^read"}, {"read"}),
        ({"deny": "re"}, {"write"}),
        ({"allow": "read", "deny": "^re.+d$"}, set()),
        ({"allow": "read|write", "deny": "rer"}, {"read", "write"}),
        ({"allow": "docs|bmcp"}, set()),
    ],
)
def test_allow_and_deny_are_searched_in_the_tools_own_name(
    settings: dict[str, str], selected: set[str]
) -> None:
    assert select("read", "reread", "write", **settings).keys() == selected


def test_schemas_stay_whole_and_malformed_tools_are_left_out(mcp: ScriptedMcp, make: Make) -> None:
    schema = {
        "type": "object",
        "$defs": {"p": {"type": "string"}},
        "properties": {"x": {"$ref": "#/$defs/p"}},
    }
    malformed = [{"name": ""}, {"name": 3}, {}, "x", None, ["name"]]
    mcp.tools = [
        {"name": "whole", "description": "W", "inputSchema": schema},
        *malformed,
        {"name": "bare", "inputSchema": {"type": "object"}},
        {"name": "poor", "description": None, "inputSchema": None},
        {"name": "bare", "inputSchema": {"type": "object", "title": "second"}},
    ]
    tools = [(tool.name, tool.description, tool.input_schema) for tool in make().tools]
    assert tools == [
        ("bare", "", {"type": "object"}),
        ("poor", "", {"type": "object"}),
        ("whole", "W", schema),
    ]


def test_tools_of_several_servers_are_sorted(mcp: ScriptedMcp, make: Make) -> None:
    mcp.tools = [OTHER, ADD]
    box = make(
        {"name": "zoo", "url": mcp.url}, {"name": "a-b", "url": mcp.url}, {"name": "a", "url": mcp.url}
    )
    assert ids(box) == sorted(ids(box))
    assert len(box.tools) == 6
    assert {(tool.server, tool.server_url) for tool in box.tools} == {
        ("zoo", mcp.url), ("a-b", mcp.url), ("a", mcp.url),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("input", "arguments"),
    [
        ("", {}),
        ("  ", {}),
        ("{}", {}),
        ('{"n": 12345678901234567890123, "f": 1e5}', {"n": 12345678901234567890123, "f": 1e5}),
        ('{"s": "\\ud800 ☃"}', {"s": "\ud800 ☃"}),
    ],
)
def test_the_input_is_json_text(mcp: ScriptedMcp, make: Make, input: str, arguments: object) -> None:
    assert make().call("bmcp_docs_add", input, UNWATCHED).is_error is False
    assert message(mcp.requests("tools/call")[0])["params"] == {"name": "add", "arguments": arguments}


@pytest.mark.parametrize("input", ["{", "[]", "null", "3", '{"a": NaN}', '{"a":' * 9999, "{} {}"])
def test_an_input_that_is_no_object_is_not_sent(mcp: ScriptedMcp, make: Make, input: str) -> None:
    outcome = make().call("bmcp_docs_add", input, UNWATCHED)
    assert outcome == ToolResult(is_error=True, error="the tool's input is not a JSON object")
    assert mcp.requests("tools/call") == []


PICTURE = {"type": "image", "data": "AA==", "mimeType": "image/png", "_meta": {"x": 1}}


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        ({"content": [PICTURE]}, ToolResult((PICTURE,))),
        ({"content": [], "isError": True}, ToolResult(is_error=True)),
        ({"structuredContent": {"a": 1}}, ToolResult(structured={"a": 1})),
        ({"content": [], "structuredContent": [1]}, ToolResult()),
        ({"content": "x"}, ToolResult(is_error=True, error="the MCP server's result is not one of a tool")),
        ({"content": ["x"]}, ToolResult(is_error=True, error="the MCP server's result is not one of a tool")),
    ],
)
def test_a_result_is_the_servers(mcp: ScriptedMcp, make: Make, value: object, outcome: object) -> None:
    mcp.on["tools/call"].append(lambda request: [result(request, value)])
    assert make().call("bmcp_docs_add", "", UNWATCHED) == outcome


def test_a_call_of_an_unknown_tool_has_a_result_too(mcp: ScriptedMcp, make: Make) -> None:
    box = make()
    outcome = box.call("bmcp_docs_other", "", UNWATCHED)
    assert outcome == ToolResult(is_error=True, error="there is no tool bmcp_docs_other now")
    box.close()
    assert box.call("bmcp_docs_add", "", UNWATCHED).error == "there is no tool bmcp_docs_add now"


def test_a_call_that_lasts_too_long_has_a_result_too(mcp: ScriptedMcp, make: Make) -> None:
    mcp.enqueue("tools/call", WAIT_FOR_CLOSE)
    outcome = make(tool_timeout=0.4).call("bmcp_docs_add", "", UNWATCHED)
    assert outcome == ToolResult(is_error=True, error="the MCP server did not answer in time")


def test_all_servers_are_loaded_in_parallel_in_the_background(mcp: ScriptedMcp, make: Make) -> None:
    barrier, go = threading.Barrier(3), threading.Event()

    def answer_late(request: dict[str, object]) -> Iterator[Step]:
        barrier.wait(20)
        go.wait(20)
        yield result(request, {"tools": [ADD]})

    mcp.on["tools/list"].extend([answer_late] * 2)
    box = make({"name": "a", "url": mcp.url}, {"name": "b", "url": mcp.url}, ready=False)
    assert (box.ready, box.tools) == (False, ())
    barrier.wait(20)
    assert (box.ready, box.tools) == (False, ())
    go.set()
    wait_until(lambda: box.ready)
    assert ids(box) == ["bmcp_a_add", "bmcp_b_add"]


def test_the_first_user_of_a_process_waits_for_the_servers_a_moment(mcp: ScriptedMcp, make: Make) -> None:
    box = make({"name": "a", "url": mcp.url}, ready=False)
    assert ids(box) == ["bmcp_a_add"]


def test_a_server_that_hangs_delays_the_first_user_for_a_second_at_most(mcp: ScriptedMcp, make: Make) -> None:
    mcp.enqueue("initialize", WAIT_FOR_CLOSE)
    box = make({"name": "a", "url": mcp.url}, ready=False)
    started_at = time.monotonic()
    assert (box.tools, box.tools, box.ready) == ((), (), False)
    assert time.monotonic() - started_at < 5


def test_readyz_waits_for_the_tools(mcp: ScriptedMcp, make_app: MakeApp) -> None:
    go = threading.Event()
    mcp.on["tools/list"].append(lambda request: [go, result(request, {"tools": [ADD]})])
    app = make_app(mcp_servers=[{"name": "docs", "url": mcp.url}])
    client = app.test_client()
    waiting = client.get(f"{PREFIX}/readyz")
    assert (waiting.status_code, waiting.get_json()["status"]) == (503, "tools are being loaded")
    assert client.get(f"{PREFIX}/healthz").status_code == 200
    go.set()
    wait_until(lambda: client.get(f"{PREFIX}/readyz").status_code == 200)
    app.extensions["aibridge"].close(app)
    wait_until(lambda: len(mcp.requests("DELETE")) == 1)


def test_a_server_that_is_down_is_left_out_until_it_is_up(
    mcp: ScriptedMcp, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aibridge.tools")
    headers = {"Authorization": {"value": f"Bearer {SECRET}"}}
    for _ in range(2):
        mcp.enqueue("initialize", http_response(503, SECRET.encode()))
    port = free_port()
    box = make(
        {"name": "late", "url": mcp.url, "headers": headers},
        {"name": "never", "url": f"http://127.0.0.1:{port}/mcp"},
    )
    assert box.tools == ()
    wait_until(lambda: ids(box) == ["bmcp_late_add"])
    messages = [(record.levelname, record.message) for record in caplog.records if "late" in record.message]
    assert messages == [
        ("WARNING", "the tools of MCP server late are left out: the MCP server answered with status 503"),
        ("INFO", "MCP server late is up, tools: 1"),
    ]
    assert len([record for record in caplog.records if "never" in record.message]) == 1
    assert SECRET not in caplog.text


@pytest.mark.parametrize("announced_in", ["tools/call", "GET"])
def test_new_tools_replace_the_old_ones(mcp: ScriptedMcp, make: Make, announced_in: str) -> None:
    go = threading.Event()
    if announced_in == "GET":
        mcp.enqueue("GET", stream_head(), go, chunk(event(LIST_CHANGED)), WAIT_FOR_CLOSE)
    box = make()
    before = box.tools
    mcp.tools = [OTHER]
    mcp.on["tools/call"].append(
        lambda request: events(
            *([LIST_CHANGED] if announced_in == "tools/call" else []), {"id": request["id"], "result": {}}
        )
    )
    assert box.call("bmcp_docs_add", "", UNWATCHED).is_error is False
    go.set()
    wait_until(lambda: ids(box) == ["bmcp_docs_other"])
    assert [tool.id for tool in before] == ["bmcp_docs_add"]
    assert len(mcp.requests("initialize")) == 1


def test_a_server_whose_call_failed_is_probed(mcp: ScriptedMcp, make: Make) -> None:
    box = make()
    mcp.enqueue("tools/call", http_response(502, b""))
    mcp.enqueue("tools/list", http_response(502, b""))
    assert box.call("bmcp_docs_add", "", UNWATCHED).is_error is True
    wait_until(lambda: box.tools == ())
    wait_until(lambda: ids(box) == ["bmcp_docs_add"])


def test_servers_that_hang_delay_the_close_only_once(mcp: ScriptedMcp, make: Make) -> None:
    box = make(*({"name": f"s{n}", "url": mcp.url} for n in range(8)))
    wait_until(lambda: len(mcp.requests("GET")) == 8)
    go = threading.Event()
    mcp.on["DELETE"].extend([lambda request: [go, http_response(200, b"")]] * 8)
    closing = threading.Thread(target=box.close)
    closing.start()
    closing.join(TIMEOUT_SECONDS)
    assert not closing.is_alive()
    assert box.tools == ()
    go.set()


def test_an_empty_toolbox_does_nothing(upstream: Upstream, make_app: MakeApp) -> None:
    threads = _thread._count()
    box = ToolBox(config.load({}))
    box.start()
    assert (box.ready, box.tools, _thread._count()) == (True, (), threads)
    assert box.call("bmcp_docs_add", "", UNWATCHED).is_error is True
    box.close()
    assert upstream.requests == []


FORKING_PROGRAM = """
import sys
if sys.argv[1] == "gevent":
    from gevent import monkey
    monkey.patch_all()
import json, os, time
from aibridge_flask import config
from aibridge_flask.tools import ToolBox
from aibridge_flask.waiting import UNWATCHED

def use():
    deadline = time.monotonic() + 20
    while not box.ready:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return box.call("bmcp_docs_add", "", UNWATCHED).is_error

box = ToolBox(config.load(json.loads(sys.argv[2])))
is_error = use()
child = os.fork()
if child == 0:
    is_error = use()
    time.sleep(1.2)  # whatever gevent copied of the parent's box has run by now
    os._exit(is_error or box.close() is not None)
is_error = os.waitpid(child, 0)[1] or is_error or use()
sys.exit(is_error)  # which ends the session
"""


@pytest.mark.parametrize("mode", ["threads", "gevent"])
def test_a_forked_process_opens_its_own_sessions(mcp: ScriptedMcp, tmp_path: Path, mode: str) -> None:
    for session in ("parent", "child"):
        mcp.on["initialize"].append(
            lambda request, session=session: [
                result(request, {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}, f"Mcp-Session-Id: {session}")
            ]
        )  # fmt: skip
        mcp.enqueue("GET", stream_head(), WAIT_FOR_CLOSE)
    tree = {"mcp_servers": [{"name": "docs", "url": mcp.url}]}
    process = subprocess.run(
        [sys.executable, "-c", FORKING_PROGRAM, mode, json.dumps(tree)],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (process.returncode, process.stderr) == (0, "")
    sessions = [request.header("mcp-session-id") for request in mcp.requests("tools/call")]
    assert sessions == ["parent", "child", "parent"]
    assert [request.header("mcp-session-id") for request in mcp.requests("DELETE")] == ["child", "parent"]
    assert {method(request) for request in mcp.upstream.requests} >= {"tools/list"}
    assert SESSION not in sessions
