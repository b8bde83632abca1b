"""Central tools in all formats: the model picks one, the bridge runs it, the client sees one answer."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.support.mcp import ScriptedMcp, message, result
from tests.support.scrape import scrape
from tests.support.server import Server
from tests.support.tool_dialects import (
    ADD,
    CALLS,
    CALLS_QUIETLY,
    CLIENT_CALL,
    COPILOT_TOKEN,
    DIALECTS,
    ENDS,
    OFFERED_CALL,
    PROMPT,
    WHOLE_TEXT,
    Answer,
    Call,
    ToolDialect,
    newest_record,
)
from tests.support.upstream import LAST_CHUNK, Upstream, chunk, http_response, stream_head
from tests.tools.conftest import StartBridge

FAILURE = "the MCP server answered with status 500"


def test_a_tool_is_run_and_the_client_sees_one_answer(
    api: ToolDialect, toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, streaming: bool
) -> None:
    api.enqueue(upstream, streaming, CALLS, ENDS)
    view = api.view(api.use_package(toolbridge.url, streaming))
    seen = Answer(
        "answer_1" if api.keeps_first_id else "answer_2",
        text=WHOLE_TEXT,
        thought="hmso",
        input_tokens=30,
        cached_tokens=4,
        output_tokens=11,
    )
    assert view == api.view_of(seen)
    first, second = (json.loads(received.body) for received in upstream.requests)
    assert api.tool_names(first) == [ADD]
    assert second == api.follow_up(first, CALLS, [("call_1", "3")])
    (call,) = docs.requests("tools/call")
    assert message(call)["params"] == {"name": "add", "arguments": {"a": 1, "b": 2}}


def test_an_answer_that_holds_the_call_alone_adds_no_text(
    api: ToolDialect, toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, streaming: bool
) -> None:
    api.enqueue(upstream, streaming, CALLS_QUIETLY, ENDS)
    view = api.view(api.use_package(toolbridge.url, streaming))
    seen = Answer(view.id, text="It is 3.", input_tokens=30, cached_tokens=4, output_tokens=11)
    assert replace(view, thoughts="") == api.view_of(seen)
    first, second = (json.loads(received.body) for received in upstream.requests)
    assert second == api.follow_up(first, CALLS_QUIETLY, [("call_1", "3")])


def test_the_asynchronous_package_sees_one_answer(
    api: ToolDialect, toolbridge: Server, upstream: Upstream
) -> None:
    api.enqueue(upstream, True, CALLS, ENDS)
    assert asyncio.run(api.use_package_without_blocking(toolbridge.url)) == WHOLE_TEXT


@pytest.mark.parametrize("route", ["path", "copilot_path"])
def test_each_call_and_each_turn_is_recorded(
    api: ToolDialect, toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, streaming: bool, route: str
) -> None:
    again = Call("call_9", ADD, '{"a":3}')
    last = Answer("answer_3", (CLIENT_CALL,), "6", "aha")
    api.enqueue(upstream, streaming, CALLS, Answer("answer_2", (again,)), last)
    docs.enqueue("tools/call", http_response(500, b"no"))
    headers = {"Authorization": COPILOT_TOKEN, "X_Initiator": "user"} if route == "copilot_path" else {}
    status, body, whole, id = toolbridge.post(getattr(api, route), api.request(streaming), **headers)
    assert (status, whole) == (200, True)
    assert api.read(body, streaming).calls == api.view_of(last).calls
    initiators = [received.header("x-initiator") for received in upstream.requests]
    assert initiators == (["user", "agent", "agent"] if headers else [None, None, None])
    record = toolbridge.record(id)
    counts = ("provider_response_id", "input_tokens", "cache_read_input_tokens", "output_tokens")
    assert [tuple(usage[key] for key in counts) for usage in record["token_usages"]] == [
        (f"answer_{number}", 10, 2, 5) for number in (1, 2, 3)
    ]
    columns = (
        "provider_response_id", "tool_call_id", "item_id", "input", "tool", "injected", "server_url",
        "invocation_error",
    )  # fmt: skip
    calls = (OFFERED_CALL, again, CLIENT_CALL)
    first, second, third = ((api.item_id(call), api.recorded_arguments(call, streaming)) for call in calls)
    assert [tuple(usage[key] for key in columns) for usage in record["tool_usages"]] == [
        ("answer_1", "call_1", *first, "add", True, docs.url, FAILURE),
        ("answer_2", "call_9", *second, "add", True, docs.url, ""),
        ("answer_3", "call_2", *third, "grep", False, "", ""),
    ]
    assert [thought["content"] for thought in record["model_thoughts"]] == ["hm", "aha"]
    prompts = [(prompt["provider_response_id"], prompt["prompt"]) for prompt in record["user_prompts"]]
    assert prompts == [("answer_1", PROMPT)]
    assert (record["error_type"], record["wire_exact"], record["status_code"]) == ("", False, 200)
    assert api.tool_results(json.loads(upstream.requests[1].body)) == [("call_1", f"Error: {FAILURE}")]
    assert api.tool_results(json.loads(upstream.requests[2].body))[1:] == [("call_9", "3")]


@pytest.mark.parametrize("before", [(), (CALLS,)], ids=["first", "later"])
@pytest.mark.parametrize(
    "calls", [(OFFERED_CALL, CLIENT_CALL), (CLIENT_CALL, OFFERED_CALL)], ids=["last", "first"]
)
def test_a_turn_with_calls_of_the_clients_own_is_finished_for_it(
    api: ToolDialect,
    toolbridge: Server,
    upstream: Upstream,
    docs: ScriptedMcp,
    streaming: bool,
    before: tuple[Answer, ...],
    calls: tuple[Call, ...],
) -> None:
    api.enqueue(upstream, streaming, *before, Answer("answer_2", calls))
    message = api.use_package(toolbridge.url, streaming)
    view = api.view(message)
    clients = api.view_of(Answer("answer_2", (CLIENT_CALL,)))
    assert (view.calls, view.finish) == (clients.calls, clients.finish)
    assert "bmcp_" not in json.dumps(message)
    assert len(docs.requests("tools/call")) == len(before)
    record = newest_record(toolbridge)
    outcomes = {"call_1": ("add", "not run: mixed with client tool calls"), "call_2": ("grep", "")}
    uses = [(use["tool"], use["invocation_error"]) for use in record["tool_usages"]]
    assert uses == [*[("add", "")] * len(before), *(outcomes[call.id] for call in calls)]


def test_a_call_that_was_cut_is_not_run(
    api: ToolDialect, toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, streaming: bool
) -> None:
    cut = Answer("answer_1", (OFFERED_CALL,), "So", is_cut=True)
    api.enqueue(upstream, streaming, cut)
    _, body, whole, id = toolbridge.post(api.path, api.request(streaming))
    assert whole
    assert b"bmcp_" not in body
    assert api.read(body, streaming) == api.view_of(replace(cut, calls=()))
    assert docs.requests("tools/call") == []
    (use,) = toolbridge.record(id)["tool_usages"]
    assert use["invocation_error"] == "not run: the answer ended before"


def test_text_is_passed_on_while_the_turn_runs(
    api: ToolDialect, toolbridge: Server, upstream: Upstream
) -> None:
    go = threading.Event()
    data = api.stream(CALLS)
    cut = data.index(b"\n\n", data.index(b'"Let')) + 2
    upstream.enqueue(stream_head(), chunk(data[:cut]), go, chunk(data[cut:]), LAST_CHUNK)
    api.enqueue(upstream, True, ENDS)
    client = toolbridge.connect()
    client.send("POST", api.path, api.request(True))
    client.head()
    assert client.chunk() == data[:cut]
    go.set()
    assert client.chunks()[1]


def test_calls_of_one_turn_run_in_parallel(
    api: ToolDialect, toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, streaming: bool
) -> None:
    """Each is answered once the other has come; the results are in the calls' order."""
    arrived = [threading.Event(), threading.Event()]

    def meet(request: dict[str, Any]) -> Iterator[object]:
        number = request["params"]["arguments"]["n"]
        arrived[number].set()
        yield arrived[1 - number]
        yield result(request, {"content": [{"type": "text", "text": str(number)}]})

    docs.on["tools/call"] += [meet, meet]
    calls = (Call("call_a", ADD, '{"n": 0}'), Call("call_b", ADD, '{"n": 1}'))
    api.enqueue(upstream, streaming, Answer("answer_1", calls), ENDS)
    assert toolbridge.post(api.path, api.request(streaming))[2]
    assert api.tool_results(json.loads(upstream.requests[1].body)) == [("call_a", "0"), ("call_b", "1")]


@pytest.mark.parametrize("waits_for", ["tool", "answer"])
def test_pings_fill_the_silence(
    api: ToolDialect, toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, waits_for: str
) -> None:
    """While a tool runs, and while the next answer is waited for."""
    go = threading.Event()
    before_result, before_answer = ([go], []) if waits_for == "tool" else ([], [go])
    docs.on["tools/call"].append(lambda request: iter([*before_result, result(request, {"content": []})]))
    api.enqueue(upstream, True, CALLS)
    upstream.enqueue(*before_answer, *api.steps(ENDS, True))
    client = toolbridge.connect()
    client.send("POST", api.path, api.request(True))
    client.head()
    received = b""
    while received.count(api.keepalive) < 2:
        received += client.chunk()
    go.set()
    rest, whole = client.chunks()
    assert whole
    assert api.has_last_event(received + rest)
    assert api.read(received + rest, True).text == WHOLE_TEXT


@pytest.mark.parametrize(
    ("api", "changes"),
    [(api, changes) for api in DIALECTS for changes in api.without_tools],
    ids=lambda value: str(value) if isinstance(value, ToolDialect) else ",".join(value),
    indirect=["api"],
)
def test_a_body_stays_as_it_is_if_no_tools_are_offered(
    api: ToolDialect, toolbridge: Server, upstream: Upstream, changes: dict[str, object]
) -> None:
    body = api.request(True, **changes)
    api.enqueue(upstream, True, CALLS)
    assert toolbridge.post(api.path, body)[:3] == (200, api.stream(CALLS), True)
    assert upstream.requests[0].body == body
    record = newest_record(toolbridge)
    assert record["wire_exact"] is True


def test_a_provider_may_offer_none(
    api: ToolDialect, start_toolbridge: StartBridge, upstream: Upstream
) -> None:
    provider = {
        "type": api.provider,
        "base_url": upstream.url + api.base_path,
        "keys": [{"value": api.central_key}],
        "inject_tools": False,
    }
    server = start_toolbridge(providers=[provider])
    api.enqueue(upstream, True, CALLS)
    assert server.post(api.path, api.request(True))[1] == api.stream(CALLS)
    assert upstream.requests[0].body == api.request(True)


def test_compressed_bodies_and_answers_are_passed_on_decoded(
    api: ToolDialect, toolbridge: Server, upstream: Upstream, streaming: bool
) -> None:
    for model_answer in (CALLS, ENDS):
        upstream.enqueue(*api.compressed_steps(model_answer, streaming))
    client = toolbridge.connect()
    client.send("POST", api.path, gzip.compress(api.request(streaming)), Content_Encoding="gzip")
    status, headers = client.head()
    body, whole = client.body(headers)
    assert (status, whole, "content-encoding" in headers) == (200, True, False)
    assert api.read(body, streaming).text == WHOLE_TEXT
    assert [received.header("content-encoding") for received in upstream.requests] == [None, None]
    assert api.prompt(json.loads(upstream.requests[1].body)) == PROMPT


def test_calls_are_counted(
    api: ToolDialect, toolbridge: Server, upstream: Upstream, docs: ScriptedMcp
) -> None:
    labels = {"provider": api.provider, "model": api.model}
    tool = {**labels, "server": docs.url, "name": "add"}
    calls, tokens = "injected_tool_invocations_total", "tokens_total"
    client_tool, client_calls = {**labels, "name": "grep"}, "non_injected_tool_selections_total"
    before = scrape(toolbridge)
    api.enqueue(upstream, True, CALLS, ENDS, Answer("answer_3", (OFFERED_CALL, CLIENT_CALL)))
    ids = [toolbridge.post(api.path, api.request(True))[3] for _ in range(2)]
    for id in ids:
        toolbridge.record(id)
    after = scrape(toolbridge)
    assert after.sum(calls, **tool) - before.sum(calls, **tool) == 1
    assert after.sum(tokens, type="output", **labels) - before.sum(tokens, type="output", **labels) == 16
    assert after.sum(client_calls, **client_tool) - before.sum(client_calls, **client_tool) == 1
    assert after.sum(client_calls, name=ADD) == before.sum(client_calls, name=ADD)
