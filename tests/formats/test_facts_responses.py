"""What is read of a response of the Responses API: tool calls, thoughts, tokens and failures."""

from __future__ import annotations

import json

import pytest

from aibridge_flask.formats import RESPONSES
from aibridge_flask.model import RequestFacts, Turn
from tests.support.responses import Json, call, dumps, event, events, response, stream, thought

OPERATION: Json = {"type": "update_file", "path": "a.py", "diff": "@@\n-1\n+2"}
BOTH = pytest.mark.parametrize("streaming", [False, True])


def read(data: bytes, streaming: bool = True) -> Turn:
    fold = RESPONSES.fold(RequestFacts(streaming=True)) if streaming else RESPONSES.blocking_fold()
    assert fold.feed(data) + fold.end() == data
    return fold.turn()


def read_response(value: Json, streaming: bool) -> Turn:
    return read(stream(value), streaming) if streaming else read(dumps(value), streaming)


def typed_call(kind: str, **members: object) -> Json:
    return {"type": kind, "id": "i_1", "call_id": "call_1", "status": "completed", **members}


@BOTH
@pytest.mark.parametrize(
    ("kind", "members", "input"),
    [
        ("apply_patch_call", {"operation": OPERATION}, {"operation": OPERATION}),
        ("tool_search_call", {"execution": "client", "arguments": {"goal": "tides"}}, {"goal": "tides"}),
        (
            "code_interpreter_call",
            {"code": "1 + 1", "container_id": "c_1", "outputs": [{"type": "logs", "logs": "2"}]},
            {"code": "1 + 1", "container_id": "c_1"},
        ),
        ("file_search_call", {"queries": ["tin"], "results": [{"text": "33"}]}, {"queries": ["tin"]}),
        ("computer_call", {"action": {"type": "wait"}, "pending_safety_checks": []}, {"type": "wait"}),
        (
            "computer_call",
            {"action": {"type": "wait"}, "pending_safety_checks": [{"id": "s"}]},
            {"action": {"type": "wait"}, "pending_safety_checks": [{"id": "s"}]},
        ),
        ("image_generation_call", {"result": "aGk=", "size": "auto"}, {"size": "auto"}),
        ("call_of_tomorrow_call", {"wish": {"a": 1}, "depth": 2}, {"wish": {"a": 1}, "depth": 2}),
    ],
)
def test_a_call_of_the_apis_own_tools_has_its_input(
    streaming: bool, kind: str, members: Json, input: Json
) -> None:
    """Each type has members of its own; results are not input."""
    (read_call,) = read_response(response("r", typed_call(kind, **members)), streaming).tool_calls
    assert (read_call.id, read_call.item_id) == ("call_1", "i_1")
    assert read_call.name == kind.removesuffix("_call")
    assert json.loads(read_call.input) == input


@BOTH
@pytest.mark.parametrize("members", [{}, {"arguments": ""}, {"input": ""}, {"action": None}])
def test_a_call_without_input_has_none(streaming: bool, members: Json) -> None:
    (read_call,) = read_response(response("r", typed_call("a_call", **members)), streaming).tool_calls
    assert read_call.input == ""


def only(value: Json, *kinds: str) -> bytes:
    """The stream without the events of these kinds."""
    return b"".join(event(told) for told in events(value) if not told["type"].startswith(kinds))


ITEMS = (thought("rs", "Hm."), call("a", "weigh"), call("b", "weigh"), typed_call("apply_patch_call"))


@pytest.mark.parametrize(
    "without",
    [
        ("response.output_item", "response.function_call", "response.reasoning"),
        ("response.output_item.done",),
        ("response.output_item.added",),
        (),
    ],
)
def test_what_only_the_last_event_tells_is_read_once(without: tuple[str, ...]) -> None:
    turn = read(only(response("r", *ITEMS), *without))
    assert [read_call.id for read_call in turn.tool_calls] == ["call_a", "call_b", "call_1"]
    assert [thought.content for thought in turn.thoughts] == ["Hm."]


def test_items_are_known_by_their_index_if_each_event_has_another_id() -> None:
    """Copilot's have one."""
    told = [
        {**each, "item": {**each["item"], "id": f"other {number}"}} if "item" in each else each
        for number, each in enumerate(events(response("r", *ITEMS)))
    ]
    assert len(read(b"".join(map(event, told))).tool_calls) == 3


def test_a_call_is_read_of_a_stream_that_was_cut() -> None:
    turn = read(only(response("r", *ITEMS), "response.output_item.done", "response.completed"))
    assert [read_call.name for read_call in turn.tool_calls] == ["weigh", "weigh", "apply_patch"]


def test_two_calls_of_one_id_are_two_calls() -> None:
    turn = read(dumps(response("r", call("a", "weigh"), call("a", "weigh"))), streaming=False)
    assert len(turn.tool_calls) == 2


@BOTH
def test_thoughts_of_models_with_open_weights_are_whole(streaming: bool) -> None:
    item = {**thought("rs", "Sums."), "content": [{"type": "reasoning_text", "text": "1 + 1"}]}
    turn = read_response(response("r", item), streaming)
    found = [(thought.content, thought.source) for thought in turn.thoughts]
    assert found == [("Sums.", "reasoning_summary"), ("1 + 1", "thinking")]


@BOTH
def test_reasoning_beside_the_output_is_output(streaming: bool) -> None:
    usage = {"input_tokens": 32, "output_tokens": 9, "total_tokens": 135}
    turn = read_response(response("r", usage=usage), streaming)
    assert (turn.usage.input_tokens, turn.usage.output_tokens) == (32, 103)
