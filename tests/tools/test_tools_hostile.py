"""Central tools where nothing goes well: odd upstreams and tools, clients that leave, workers that end."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from genai_prices import Usage

from aibridge_flask.formats import MESSAGES
from aibridge_flask.model import ToolResult
from tests.conftest import MakeApp, Start
from tests.formats.test_splice_messages import ADD as TOOL
from tests.formats.test_splice_messages import offered
from tests.support import claude
from tests.support.claude import message, text, use
from tests.support.mcp import ScriptedMcp, result
from tests.support.mcp import message as asked_of
from tests.support.server import KEEPALIVE, PATIENCE, PREFIX, Client, Server, until
from tests.support.upstream import (
    CLOSE,
    GONE,
    RESET,
    Heard,
    Step,
    Upstream,
    answer,
    chunk,
    stream_head,
    streamed,
)
from tests.tools.test_tools_messages import (
    ADD,
    BOTH,
    ENDS,
    MINE,
    PICKS,
    THEIRS,
    ask,
    asked,
    events,
    say,
)
from tests.tools.test_tools_messages import (
    MESSAGES as PATH,
)

KEY = "sk-ant-central-0123456789"  # of the shared server
CANARY = "mcp-canary-0123456789"
START = {"type": "message_start", "message": {**message("msg_1"), "content": [], "stop_reason": None}}
PICKED = {"type": "tool_use", "id": "toolu_1", "name": ADD, "input": {}}
STOPPED = {"type": "content_block_stop", "index": 0}
ENDED = (
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}},
    {"type": "message_stop"},
)


def begun(block: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_start", "index": 0, "content_block": block}


def given(piece: str) -> dict[str, Any]:
    return {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "input_json_delta", "partial_json": piece},
    }


def stream(*found: dict[str, Any]) -> bytes:
    """Whatever the order; all beyond ASCII is escaped."""
    return b"".join(
        b"event: %s\ndata: %s\n\n" % (one["type"].encode(), json.dumps(one).encode()) for one in found
    )


def newest(server: Server) -> dict[str, Any]:
    """The newest interception, once it has ended."""
    found = server.get("/interceptions?limit=1")["results"]
    return server.record(found[0]["id"])


def outcomes(record: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["tool_call_id"], one["invocation_error"]) for one in record["tool_usages"]]


# What models and upstreams say.


@pytest.mark.parametrize(
    ("pieces", "sent", "ran"),
    [
        ([], {}, {}),
        (['{"a":"\ud83e', '\udd14"}'], {"a": "🤔"}, {"a": "🤔"}),
        (['{"a":"\ud83e"}'], {"a": "\ud83e"}, {"a": "\ud83e"}),
        (['{"a":1,', '"a":2}'], {"a": 2}, {"a": 2}),
        (['{"a":NaN}'], {}, None),
        (['{"a":1e999}'], {"a": float("inf")}, None),
        (['{"a":'], {}, None),
        (["[]"], {}, None),
        (['{"a":' * 2000 + "1" + "}" * 2000], {}, None),
    ],
)
def test_an_odd_input_spoils_neither_the_call_nor_the_next_request(
    toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, pieces: list[str], sent: object, ran: object
) -> None:
    upstream.say(*streamed(stream(START, begun(PICKED), *map(given, pieces), STOPPED, *ENDED)))
    say(upstream, True, ENDS)
    status, body, whole, _ = asked(toolbridge, ask(True))
    assert (status, whole, events(body)[-1]["type"]) == (200, True, "message_stop")
    again = json.loads(upstream.heard[1].body, parse_constant=pytest.fail)
    assert again["messages"][1]["content"] == [{**PICKED, "input": sent}]
    calls = [asked_of(heard)["params"]["arguments"] for heard in docs.asked("tools/call")]
    assert calls == ([] if ran is None else [ran])
    assert again["messages"][2]["content"][0].get("is_error", False) is (ran is None)


def test_blocks_that_contradict_each_other_end_the_answer(toolbridge: Server, upstream: Upstream) -> None:
    """A second block takes the place of the offered call, and the model stops for it all the same."""
    blocks = (begun(PICKED), begun(text("")), STOPPED)
    upstream.say(*streamed(stream(START, *blocks, *ENDED)))
    status, body, whole, id = asked(toolbridge, ask(True))
    assert (status, whole) == (200, False)
    assert events(body)[-1]["error"]["message"] == "the AI provider's answer broke off"
    assert toolbridge.record(id)["error_type"] == "server_error"


def test_an_upstream_that_does_not_end_its_stream_is_left(toolbridge: Server, upstream: Upstream) -> None:
    upstream.say(stream_head(), chunk(claude.stream(PICKS)), GONE)
    say(upstream, True, ENDS)
    status, body, whole, id = asked(toolbridge, ask(True))
    assert (status, whole, events(body)[-1]["type"]) == (200, True, "message_stop")
    assert upstream.gone.wait(PATIENCE)
    assert toolbridge.record(id)["error_type"] == ""


@pytest.mark.parametrize(
    "noise",
    [
        b': "content_block_start"\n\n',
        b'event: content_block_start\ndata: {"type":"content_block_start","index":0,\n\n',
        b'event: content_block_start\ndata: {"type":"content_block_start","index":[],"content_block":7}\n\n',
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":null,"delta":"x"}\n\n',
    ],
)
def test_what_is_no_event_does_not_spoil_the_next_request(noise: bytes) -> None:
    plain = claude.stream(message("msg_1", use("toolu_1", TOOL.id, a=1), stop="tool_use"))
    cut = plain.index(b"event: content_block_start")
    offer = offered()
    fold = MESSAGES.splice(offer, MESSAGES.read(offer.body))
    fold.feed(plain[:cut] + noise + plain[cut:])
    fold.end()
    assert fold.awaits_tools
    (call,) = fold.turn().tool_calls[-1:]
    body = json.loads(fold.follow_up([(call, ToolResult())]))
    assert body["messages"][1]["content"] == [use("toolu_1", TOOL.id, a=1)]


BROKEN = ("api_error", "the AI provider's answer broke off")
AWAY = ("api_error", "the AI provider could not be reached")
WELL = ("", "")


@pytest.mark.parametrize(
    ("streaming", "steps", "told"),
    [
        (True, [answer(302, b"", "Location: http://127.0.0.1:1/")], ("api_error", "the AI provider answered with status 302")),
        (True, [answer(502, b"<html>" * 999_999, kind="text/html")], ("api_error", "the AI provider answered with status 502")),
        (True, [answer(200, claude.whole(ENDS))], BROKEN),
        (False, streamed(claude.stream(ENDS)), BROKEN),
        (True, [b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"], AWAY),
        (False, [b"no HTTP\r\n\r\n", CLOSE], AWAY),
        (True, [answer(200, b"")], BROKEN),
        (True, streamed(b"xx" + gzip.compress(claude.stream(ENDS)), 9, "Content-Encoding: gzip"), BROKEN),
        (True, streamed(gzip.compress(claude.stream(ENDS)), 9, "Content-Encoding: gzip"), WELL),
        (False, [answer(200, gzip.compress(claude.whole(ENDS)), "Content-Encoding: gzip")], WELL),
        (True, [b"HTTP/1.1 103 X\r\nLink: x\r\n\r\n", *streamed(claude.stream(ENDS))], WELL),
        (True, streamed(claude.stream(ENDS) + b'event: ping\ndata: {"type": "ping"}\n\n'), WELL),
    ],
)  # fmt: skip
def test_a_later_answer_of_another_kind(
    toolbridge: Server,
    upstream: Upstream,
    docs: ScriptedMcp,
    streaming: bool,
    steps: list[Step],
    told: tuple[str, str],
) -> None:
    say(upstream, streaming, PICKS)
    upstream.say(*steps)
    status, body, whole, id = asked(toolbridge, ask(streaming))
    record = toolbridge.record(id)
    error = (events(body)[-1] if streaming else json.loads(body)).get("error", {"type": "", "message": ""})
    assert (error["type"], error["message"]) == told
    assert (status, whole) == ((200, told == WELL) if streaming else (502 if told[0] else 200, True))
    assert (record["error_type"] == "", record["error_message"]) == (told == WELL, told[1])
    assert outcomes(record) == [("toolu_1", "")]


@pytest.mark.parametrize("step", [CLOSE, RESET])
def test_a_connection_that_died_while_the_tool_ran_is_replaced(
    toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, step: Step
) -> None:
    say(upstream, True, PICKS)
    upstream.say(step)
    say(upstream, True, ENDS)
    assert asked(toolbridge, ask(True))[2]
    assert len(docs.asked("tools/call")) == 1
    assert upstream.heard[1].body == upstream.heard[2].body


@BOTH
def test_keys_that_rest_no_time_at_all_were_rate_limited(
    toolbridge_of_two_keys: Server, upstream: Upstream, streaming: bool
) -> None:
    server = toolbridge_of_two_keys
    say(upstream, streaming, PICKS)
    upstream.say(answer(429, b"{}", "Retry-After: 0"))
    upstream.say(answer(429, b"{}", "Retry-After: 0"))
    status, body, _, id = asked(server, ask(streaming))
    assert (events(body)[-1] if streaming else json.loads(body))["error"]["type"] == "rate_limit_error"
    assert (status, server.record(id)["error_type"]) == (200 if streaming else 429, "rate_limited")


@pytest.mark.parametrize("later", [False, True])
def test_a_key_that_the_upstream_tells_is_not_recorded(
    toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, later: bool
) -> None:
    """In the middle of a stream the upstream's words pass; what the bridge says for it leaves the key out."""
    error = {"type": "error", "error": {"type": "permission_error", "message": f"{KEY} may not"}}
    if later:
        say(upstream, True, PICKS)
        upstream.say(answer(403, json.dumps(error).encode()))
    else:
        upstream.say(*streamed(stream(START, begun(PICKED), STOPPED, error)))
    _, body, _, id = asked(toolbridge, ask(True))
    record = toolbridge.record(id)
    assert record["error_message"] == "sk-a...6789 may not"
    assert outcomes(record) == [("toolu_1", "" if later else "not run: sk-a...6789 may not")]
    assert (KEY in body.decode()) is not later


def test_each_answer_costs_what_it_costs_alone(
    make_app: MakeApp, upstream: Upstream, docs: ScriptedMcp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens of this model cost double in requests above 200,000."""

    def calc_price(usage: Usage, model: str) -> SimpleNamespace:
        price = 2 if usage.input_tokens > 200_000 else 1
        return SimpleNamespace(total_price=price * (usage.input_tokens * 3 + usage.output_tokens * 15) / 1e6)

    monkeypatch.setattr("genai_prices.calc_price", calc_price)
    client = make_app(mcp_servers=[{"name": "docs", "url": docs.url}]).test_client()
    until(lambda: client.get(f"{PREFIX}/readyz").status_code == 200)
    told = {"model": "dearer-when-large"}
    used = {"input_tokens": 70_000, "cache_read_input_tokens": 10_000, "cache_creation_input_tokens": 10_000}
    one, two = ({**message(id, MINE, stop="tool_use", **used), **told} for id in ("msg_1", "msg_2"))
    say(upstream, True, one, two, {**message("msg_3", text("x"), **used), **told})
    body = client.post(PREFIX + PATH, data=ask(True, **told)).get_data()
    assert events(body)[-2]["usage"]["input_tokens"] == 210_000
    (record,) = client.get(f"{PREFIX}/interceptions").get_json()["results"]
    assert record["cost_micros"] == 3 * (90_000 * 3 + 5 * 15)


# What MCP servers say.


def nested(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


def given_as(found: str) -> Callable[[dict[str, Any]], list[bytes]]:
    """A result as it stands."""
    return lambda asked: [
        answer(200, b'{"jsonrpc":"2.0","id":%d,"result":%s}' % (asked["id"], found.encode()))
    ]


@BOTH
@pytest.mark.parametrize(
    ("found", "told"),
    [
        (f'{{"structuredContent":{nested(900)}}}', "Error: the MCP server's answer is nested too deeply"),
        (f'{{"structuredContent":{nested(150)}}}', nested(150)),
        ('{"content":{"a":1}}', "Error: the MCP server's result is not one of a tool"),
        ('{"content":[{"type":"text","text":"\\u0000\\ud800"}]}', "\0\ud800"),
        (json.dumps({"content": [{"type": "image", "mimeType": "image/png", "data": "A" * 6_000_000}]}), "[content of type image/png left out]"),
        (json.dumps({"content": [{"type": "text", "text": "x" * 11_000_000}]}), "Error: the MCP server's answer is too large"),
    ],
    ids=["deep", "not so deep", "shape", "characters", "picture", "text"],
)  # fmt: skip
def test_an_odd_result_is_told_to_the_model(
    toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, streaming: bool, found: str, told: str
) -> None:
    docs.on["tools/call"].append(given_as(found))
    say(upstream, streaming, PICKS, ENDS)
    assert asked(toolbridge, ask(streaming))[::2] == (200, True)
    assert json.loads(upstream.heard[1].body)["messages"][2]["content"][0]["content"] == [text(told)]


def test_a_schema_without_end_does_not_spoil_every_request(start: Start, upstream: Upstream) -> None:
    listed = f'{{"tools":[{{"name":"odd","inputSchema":{nested(960)}}}]}}'
    with contextlib.closing(Upstream()) as own:
        mcp = ScriptedMcp(own)
        mcp.on["tools/list"].append(given_as(listed))
        server = start(mcp_servers=[{"name": "docs", "url": mcp.url}])
        server.wait_ready("/readyz")
        say(upstream, True, ENDS)
        assert asked(server, ask(True))[::2] == (200, True)


def test_what_a_tool_s_failure_tells_is_kept_secret(
    start: Start, upstream: Upstream, docs: ScriptedMcp
) -> None:
    one = {"name": "docs", "url": docs.url, "headers": {"Authorization": {"value": f"Bearer {CANARY}"}}}
    server = start(mcp_servers=[one], logs={"records": True, "level": "debug"})
    server.wait_ready("/readyz")
    error = {"code": 1, "message": f"no {CANARY}"}
    refused = [lambda asked, status=status: [answer(status, json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": error}).encode())] for status in (200, 401)]  # fmt: skip
    docs.on["tools/call"] += refused
    say(upstream, True, PICKS, PICKS, ENDS)
    _, body, whole, id = asked(server, ask(True))
    assert whole
    record = server.record(id)
    assert [error for _, error in outcomes(record)] == [
        "the MCP server refused: no ...",
        "the MCP server answered with status 401: no ...",
    ]
    seen = [
        body,
        json.dumps(record).encode(),
        server.log.read_bytes(),
        *(heard.body for heard in upstream.heard),
    ]
    assert not [one for one in seen if CANARY.encode() in one]


# Records, and who leaves.


def test_each_call_is_told_once_with_what_became_of_it(
    start: Start, upstream: Upstream, docs: ScriptedMcp
) -> None:
    server = start(
        mcp_servers=[{"name": "docs", "url": docs.url}], mcp={"tool_timeout": 0.5}, logs={"records": True}
    )
    server.wait_ready("/readyz")
    docs.on["tools/call"] += [
        lambda asked: [GONE] if asked["params"]["arguments"] else [answer(500, b"")] for _ in range(2)
    ]
    two = (use("a", ADD, n=1), use("b", ADD))
    say(
        upstream,
        True,
        message("msg_1", *two, stop="tool_use"),
        message("msg_2", MINE, THEIRS, stop="tool_use"),
    )
    _, _, _, id = asked(server, ask(True))
    expected = [
        ("a", "the MCP server did not answer in time"),
        ("b", "the MCP server answered with status 500"),
        ("toolu_1", "not run: mixed with client tool calls"),
        ("toolu_2", ""),
    ]
    assert outcomes(server.record(id)) == expected
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    uses = [line for line in lines if line["event"] == "tool_usage"]
    assert sorted((one["tool_call_id"], one["invocation_error"]) for one in uses) == expected


@BOTH
def test_a_tool_that_has_done_its_work_is_no_tool_that_was_not_run(
    toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, streaming: bool
) -> None:
    """Of 18 calls one has ended and 16 run, as many as run at once, when the client leaves."""
    docs.on["tools/call"].append(lambda asked: [result(asked, {"content": []})])
    docs.on["tools/call"] += [lambda asked: [GONE]] * 16
    say(upstream, streaming, message("m", *(use(f"c{n:02}", ADD) for n in range(18)), stop="tool_use"))
    client = toolbridge.connect()
    client.send("POST", PATH, ask(streaming))
    until(lambda: len(docs.asked("tools/call")) == 17)
    client.close()
    until(lambda: len(docs.asked("notifications/cancelled")) == 16)
    record = newest(toolbridge)
    errors = sorted(error for _, error in outcomes(record))
    left = "the client closed the connection"
    assert errors == ["", *[f"broken off: {left}"] * 16, f"not run: {left}"]
    assert record["error_type"] == "client_closed"
    assert len(docs.asked("tools/call")) == 17


@pytest.mark.parametrize(("kind", "streaming"), [("gevent", True), ("gevent", False), ("gthread", True)])
def test_nothing_is_left_of_clients_that_leave(
    start: Start, upstream: Upstream, docs: ScriptedMcp, kind: str, streaming: bool
) -> None:
    """Before the head, while the tool runs, before the second head."""
    server = start(kind=kind, keepalive_interval=KEEPALIVE, mcp_servers=[{"name": "docs", "url": docs.url}])
    server.wait_ready("/readyz")

    def leave(heard: int, *answers: list[Step]) -> None:
        upstream.heard.clear()
        for one in answers:
            upstream.say(*one)
        client = server.connect()
        client.send("POST", PATH, ask(streaming))
        until(lambda: len(upstream.heard) + len(docs.asked("tools/call")) >= heard)
        client.close()
        until(lambda: bool(newest(server)["ended_at"]))
        docs.upstream.heard.clear()

    def leave_all() -> None:
        leave(1, [GONE])
        docs.say("tools/call", GONE)
        leave(2, claude.step(PICKS, streaming))
        leave(3, claude.step(PICKS, streaming), [GONE])

    def held() -> int:
        return len(list(Path(f"/proc/{server.workers()[0]}/fd").iterdir()))

    leave_all()
    before = held()
    for _ in range(2):
        leave_all()
    until(lambda: held() <= before + 1)
    assert upstream.open_connections() <= 1
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=["term", "hup", "kill"])
def test_a_worker_that_ends_while_a_tool_runs(
    start: Start, upstream: Upstream, docs: ScriptedMcp, sign: signal.Signals
) -> None:
    named = [{"name": "docs", "url": docs.url}]
    server = start(keepalive_interval=KEEPALIVE, mcp_servers=named, prices=claude.PRICES)
    server.wait_ready("/readyz")
    go, (worker,) = threading.Event(), server.workers()
    docs.on["tools/call"].append(lambda asked: iter([go, result(asked, {"content": []})]))
    say(upstream, True, PICKS, ENDS)
    client = server.connect()
    client.send("POST", PATH, ask(True))
    client.head()
    heard = b""
    while b"event: ping" not in heard:  # what was recorded 100 ms ago holds
        heard += client.chunk()
    os.kill(worker if sign == signal.SIGKILL else server.process.pid, sign)
    if sign == signal.SIGHUP:
        until(lambda: set(server.workers()) - {worker} != set())
    go.set()
    rest, whole = client.chunks()
    killed = sign == signal.SIGKILL
    assert (whole, b"message_stop" in rest) == (not killed, not killed)
    if sign == signal.SIGTERM:
        assert server.process.wait(PATIENCE) == 0
    else:
        until(lambda: bool(newest(server)["ended_at"]))
    with contextlib.closing(sqlite3.connect(server.folder / "records.db")) as database:
        ends = database.execute("SELECT error_type, cost_micros FROM interceptions").fetchall()
        counts = [
            database.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
            for name in ("token_usages", "tool_usages")
        ]
    assert ends == [("interrupted", None) if killed else ("", 350)]
    assert counts == [1 if killed else 2, 1]
    assert "Traceback" not in server.log.read_text()


def test_a_database_that_is_away_while_a_tool_runs_holds_nobody_up(
    start: Start, upstream: Upstream, docs: ScriptedMcp
) -> None:
    server = start(mcp_servers=[{"name": "docs", "url": docs.url}], prices=claude.PRICES)
    server.wait_ready("/readyz")
    go = threading.Event()
    docs.on["tools/call"].append(lambda asked: iter([go, answer(500, b"")]))
    say(upstream, True, PICKS, ENDS)
    client = server.connect()
    client.send("POST", PATH, ask(True))
    until(lambda: bool(docs.asked("tools/call")))
    with contextlib.closing(sqlite3.connect(server.folder / "records.db", isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        go.set()
        client.head()
        assert client.chunks()[1]
        lock.execute("ROLLBACK")
    record = newest(server)
    assert outcomes(record) == [("toolu_1", "the MCP server answered with status 500")]
    assert (len(record["token_usages"]), record["error_type"], record["cost_micros"]) == (2, "", 350)


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_many_at_once_do_not_mix(start: Start, upstream: Upstream, docs: ScriptedMcp, kind: str) -> None:
    """Streams and blocking answers, three rounds each; every word names the client that asked."""
    threads = ["--threads=64"] if kind == "gthread" else []
    server = start(*threads, kind=kind, mcp_servers=[{"name": "docs", "url": docs.url}])
    server.wait_ready("/readyz")
    plain = docs._plain

    def call(name: str, found: dict[str, Any]) -> bytes:
        if name != "tools/call":
            return plain(name, found)
        return result(found, {"content": [text(f"r{found['params']['arguments']['n']}")]})

    def reply(heard: Heard) -> list[Step]:
        found = json.loads(heard.body)
        said, number = found["messages"], int(found["messages"][0]["content"])
        results = [one["content"][0]["content"][0]["text"] for one in said[2::2]]
        assert results == [f"r{number}"] * len(results)
        mine = [use(f"c{number}-{len(said)}", ADD, n=number)] if len(said) < 5 else []
        spoken = message(
            f"m{number}-{len(said)}", text(f"<{number}>"), *mine, stop="tool_use" if mine else "end_turn"
        )
        return claude.step(spoken, found.get("stream", False), 13)

    def one(number: int) -> str:
        client = Client(server.port)
        with contextlib.closing(client):
            client.send(
                "POST", PATH, ask(number % 2 == 0, messages=[{"role": "user", "content": str(number)}])
            )
            status, headers = client.head()
            body, whole = client.body(headers)
        found = events(body) if number % 2 == 0 else []
        said = [event["delta"].get("text", "") for event in found if event["type"] == "content_block_delta"]
        said = said or [block["text"] for block in json.loads(body)["content"]]
        assert (status, whole, "".join(said)) == (200, True, f"<{number}>" * 3)
        return headers["x-aibridge-interception-id"]

    docs._plain, upstream.handler = call, reply
    with ThreadPoolExecutor(50) as pool:
        ids = list(pool.map(one, range(100)))
    records = {one["id"]: one for one in server.get("/interceptions?limit=1000")["results"]}
    for number, id in enumerate(ids):
        record = records[id]
        responses = [one["provider_response_id"] for one in record["token_usages"]]
        assert responses == [f"m{number}-{size}" for size in (1, 3, 5)]
        assert outcomes(record) == [(f"c{number}-{size}", "") for size in (1, 3)]
        assert [one["prompt"] for one in record["user_prompts"]] == [str(number)]
    assert "Traceback" not in server.log.read_text()
