"""The box of tools: which there are, under which ids, and that a call always has a result."""

from __future__ import annotations

import _thread
import json
import logging
import re
import subprocess
import sys
import threading
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
from tests.support.server import PATIENCE, PREFIX, ROOT, free_port, until
from tests.support.upstream import GONE, Step, Upstream, answer, chunk, stream_head

LIST_CHANGED = {"method": "notifications/tools/list_changed"}
MORE = {"name": "more"}
Make = Callable[..., ToolBox]


@pytest.fixture
def mcp(upstream: Upstream) -> ScriptedMcp:
    return ScriptedMcp(upstream)


@pytest.fixture
def make(mcp: ScriptedMcp) -> Iterator[Make]:
    """Boxes of one server `docs`, unless others are given."""
    made: list[ToolBox] = []

    def make(*servers: dict[str, object], ready: bool = True, **mcp_settings: object) -> ToolBox:
        named = servers or ({"name": "docs", "url": mcp.url},)
        made.append(ToolBox(config.load({"mcp_servers": list(named), "mcp": mcp_settings})))
        until(lambda: made[-1].ready or not ready)
        return made[-1]

    yield make
    for box in made:
        box.close()


def ids(box: ToolBox) -> list[str]:
    return [tool.id for tool in box.tools]


def offer(*names: str, server: str = "docs", **settings: str) -> dict[str, str]:
    """Own names and ids of what a server's list comes to."""
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
def test_an_id_is_the_plain_name_where_that_does(name: str, id: str) -> None:
    assert offer(name) == {name: id}


def test_long_ids_are_cut_and_stay_stable_and_distinct() -> None:
    names = ["x" * 55, "x" * 56, "x" * 200 + "a", "x" * 200 + "b"]
    found = offer(*names)
    assert len(set(found.values())) == 4
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{64}", id) for id in found.values())
    assert {name: offer(name)[name] for name in names} == found
    assert found["x" * 55] == "bmcp_docs_" + "x" * 43 + "_da669a82ce"
    long = {server: offer("x" * 80, server=server)["x" * 80] for server in ("a" * 90, "a" * 91)}
    assert len({*long.values()}) == 2


def test_tools_of_one_id_get_digests_both() -> None:
    found = offer("a.b", "a/b", "a_c", "\ud800", "a_b_c")
    assert len(set(found.values())) == 5
    assert re.fullmatch(r"bmcp_docs_a_b_[0-9a-f]{10}", found["a.b"])
    assert re.fullmatch(r"bmcp_docs_a_b_[0-9a-f]{10}", found["a/b"])
    assert (found["a_c"], found["a_b_c"]) == ("bmcp_docs_a_c", "bmcp_docs_a_b_c")
    assert offer("a/b", "a.b", "more")["a.b"] == found["a.b"]
    assert offer("a.b", "a/b", deny="/") == {"a.b": "bmcp_docs_a_b"}


@pytest.mark.parametrize(
    ("settings", "passed"),
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
    settings: dict[str, str], passed: set[str]
) -> None:
    assert offer("read", "reread", "write", **settings).keys() == passed


def test_schemas_pass_whole_and_what_is_no_tool_is_left_out(mcp: ScriptedMcp, make: Make) -> None:
    schema = {
        "type": "object",
        "$defs": {"p": {"type": "string"}},
        "properties": {"x": {"$ref": "#/$defs/p"}},
    }
    odd = [{"name": ""}, {"name": 3}, {}, "x", None, ["name"]]
    mcp.tools = [
        {"name": "whole", "description": "W", "inputSchema": schema},
        *odd,
        {"name": "bare", "inputSchema": {"type": "object"}},
        {"name": "poor", "description": None, "inputSchema": None},
        {"name": "bare", "inputSchema": {"type": "object", "title": "second"}},
    ]
    found = [(tool.name, tool.description, tool.input_schema) for tool in make().tools]
    assert found == [
        ("bare", "", {"type": "object"}),
        ("poor", "", {"type": "object"}),
        ("whole", "W", schema),
    ]


def test_tools_of_several_servers_are_sorted(mcp: ScriptedMcp, make: Make) -> None:
    mcp.tools = [MORE, ADD]
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
    assert message(mcp.asked("tools/call")[0])["params"] == {"name": "add", "arguments": arguments}


@pytest.mark.parametrize("input", ["{", "[]", "null", "3", '{"a": NaN}', '{"a":' * 9999, "{} {}"])
def test_an_input_that_is_no_object_is_not_sent(mcp: ScriptedMcp, make: Make, input: str) -> None:
    given = make().call("bmcp_docs_add", input, UNWATCHED)
    assert given == ToolResult(is_error=True, error="the tool's input is not a JSON object")
    assert mcp.asked("tools/call") == []


PICTURE = {"type": "image", "data": "AA==", "mimeType": "image/png", "_meta": {"x": 1}}


@pytest.mark.parametrize(
    ("said", "given"),
    [
        ({"content": [PICTURE]}, ToolResult((PICTURE,))),
        ({"content": [], "isError": True}, ToolResult(is_error=True)),
        ({"structuredContent": {"a": 1}}, ToolResult(structured={"a": 1})),
        ({"content": [], "structuredContent": [1]}, ToolResult()),
        ({"content": "x"}, ToolResult(is_error=True, error="the MCP server's result is not one of a tool")),
        ({"content": ["x"]}, ToolResult(is_error=True, error="the MCP server's result is not one of a tool")),
    ],
)
def test_a_result_is_what_the_server_gave(mcp: ScriptedMcp, make: Make, said: object, given: object) -> None:
    mcp.on["tools/call"].append(lambda asked: [result(asked, said)])
    assert make().call("bmcp_docs_add", "", UNWATCHED) == given


def test_a_call_of_no_tool_has_a_result_too(mcp: ScriptedMcp, make: Make) -> None:
    box = make()
    given = box.call("bmcp_docs_other", "", UNWATCHED)
    assert given == ToolResult(is_error=True, error="there is no tool bmcp_docs_other now")
    box.close()
    assert box.call("bmcp_docs_add", "", UNWATCHED).error == "there is no tool bmcp_docs_add now"


def test_a_call_that_lasts_too_long_has_a_result_too(mcp: ScriptedMcp, make: Make) -> None:
    mcp.say("tools/call", GONE)
    given = make(tool_timeout=0.4).call("bmcp_docs_add", "", UNWATCHED)
    assert given == ToolResult(is_error=True, error="the MCP server did not answer in time")


def test_all_servers_are_loaded_at_once_in_the_background(mcp: ScriptedMcp, make: Make) -> None:
    together, go = threading.Barrier(3), threading.Event()

    def held(asked: dict[str, object]) -> Iterator[Step]:
        together.wait(20)
        go.wait(20)
        yield result(asked, {"tools": [ADD]})

    mcp.on["tools/list"].extend([held] * 2)
    box = make({"name": "a", "url": mcp.url}, {"name": "b", "url": mcp.url}, ready=False)
    assert (box.ready, box.tools) == (False, ())
    together.wait(20)
    assert (box.ready, box.tools) == (False, ())
    go.set()
    until(lambda: box.ready)
    assert ids(box) == ["bmcp_a_add", "bmcp_b_add"]


def test_readyz_waits_for_the_tools(mcp: ScriptedMcp, make_app: MakeApp) -> None:
    go = threading.Event()
    mcp.on["tools/list"].append(lambda asked: [go, result(asked, {"tools": [ADD]})])
    app = make_app(mcp_servers=[{"name": "docs", "url": mcp.url}])
    client = app.test_client()
    waiting = client.get(f"{PREFIX}/readyz")
    assert (waiting.status_code, waiting.get_data()) == (503, b'{"status":"tools are being loaded"}')
    assert client.get(f"{PREFIX}/healthz").status_code == 200
    go.set()
    until(lambda: client.get(f"{PREFIX}/readyz").status_code == 200)
    app.extensions["aibridge"].close(app)
    until(lambda: len(mcp.asked("DELETE")) == 1)


def test_a_server_that_is_down_is_left_out_until_it_is_there(
    mcp: ScriptedMcp, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aibridge.tools")
    headers = {"Authorization": {"value": f"Bearer {SECRET}"}}
    for _ in range(2):
        mcp.say("initialize", answer(503, SECRET.encode()))
    port = free_port()
    box = make(
        {"name": "late", "url": mcp.url, "headers": headers},
        {"name": "never", "url": f"http://127.0.0.1:{port}/mcp"},
    )
    assert box.tools == ()
    until(lambda: ids(box) == ["bmcp_late_add"])
    told = [(one.levelname, one.message) for one in caplog.records if "late" in one.message]
    assert told == [
        ("WARNING", "the tools of MCP server late are left out: the MCP server answered with status 503"),
        ("INFO", "MCP server late is up, tools: 1"),
    ]
    assert len([one for one in caplog.records if "never" in one.message]) == 1
    assert SECRET not in caplog.text


@pytest.mark.parametrize("said_in", ["tools/call", "GET"])
def test_other_tools_take_the_place_of_the_old_ones(mcp: ScriptedMcp, make: Make, said_in: str) -> None:
    go = threading.Event()
    if said_in == "GET":
        mcp.say("GET", stream_head(), go, chunk(event(LIST_CHANGED)), GONE)
    box = make()
    before = box.tools
    mcp.tools = [MORE]
    mcp.on["tools/call"].append(
        lambda asked: events(
            *([LIST_CHANGED] if said_in == "tools/call" else []), {"id": asked["id"], "result": {}}
        )
    )
    assert box.call("bmcp_docs_add", "", UNWATCHED).is_error is False
    go.set()
    until(lambda: ids(box) == ["bmcp_docs_more"])
    assert [tool.id for tool in before] == ["bmcp_docs_add"]
    assert len(mcp.asked("initialize")) == 1


def test_a_server_that_fails_is_asked_whether_it_is_there(mcp: ScriptedMcp, make: Make) -> None:
    box = make()
    mcp.say("tools/call", answer(502, b""))
    mcp.say("tools/list", answer(502, b""))
    assert box.call("bmcp_docs_add", "", UNWATCHED).is_error is True
    until(lambda: box.tools == ())
    until(lambda: ids(box) == ["bmcp_docs_add"])


def test_servers_that_hang_do_not_keep_the_end_waiting_one_by_one(mcp: ScriptedMcp, make: Make) -> None:
    box = make(*({"name": f"s{n}", "url": mcp.url} for n in range(8)))
    until(lambda: len(mcp.asked("GET")) == 8)
    hangs = threading.Event()
    mcp.on["DELETE"].extend([lambda asked: [hangs, answer(200, b"")]] * 8)
    closing = threading.Thread(target=box.close)
    closing.start()
    closing.join(PATIENCE)
    assert not closing.is_alive()
    assert box.tools == ()
    hangs.set()


def test_an_empty_box_does_nothing(upstream: Upstream, make_app: MakeApp) -> None:
    threads = _thread._count()
    box = ToolBox(config.load({}))
    box.start()
    assert (box.ready, box.tools, _thread._count()) == (True, (), threads)
    assert box.call("bmcp_docs_add", "", UNWATCHED).is_error is True
    box.close()
    assert upstream.heard == []


FORKS = """
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
wrong = use()
child = os.fork()
if child == 0:
    wrong = box.tools != () or use()
    time.sleep(1.2)  # what gevent copied of the parent's box could do harm now
    os._exit(wrong or box.close() is not None)
wrong = os.waitpid(child, 0)[1] or wrong or use()
sys.exit(wrong)  # which ends the session
"""


@pytest.mark.parametrize("way", ["threads", "gevent"])
def test_a_forked_process_begins_anew(mcp: ScriptedMcp, tmp_path: Path, way: str) -> None:
    for session in ("parent", "child"):
        mcp.on["initialize"].append(
            lambda asked, session=session: [
                result(asked, {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}, f"Mcp-Session-Id: {session}")
            ]
        )  # fmt: skip
        mcp.say("GET", stream_head(), GONE)
    tree = {"mcp_servers": [{"name": "docs", "url": mcp.url}]}
    ran = subprocess.run(
        [sys.executable, "-c", FORKS, way, json.dumps(tree)],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
    spoken = [one.header("mcp-session-id") for one in mcp.asked("tools/call")]
    assert spoken == ["parent", "child", "parent"]
    assert [one.header("mcp-session-id") for one in mcp.asked("DELETE")] == ["child", "parent"]
    assert {method(one) for one in mcp.upstream.heard} >= {"tools/list"}
    assert SESSION not in spoken
