"""Responses with offered tools: bytes of all answers in, bytes of one answer out."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from aibridge_flask import sse
from aibridge_flask.formats import responses
from aibridge_flask.model import RequestFacts, Tool, ToolCall, ToolResult
from aibridge_flask.protocols import Splice
from tests.support.exchanges import ALL
from tests.support.responses import Json, call, dumps, event, events, response, stream, text, thought, told

FACTS = RequestFacts("gpt-5.2", streaming=True)
ADD = Tool("bmcp_docs_add", "docs", "http://docs.example/mcp", "add", "Adds.", {"type": "object"})
FIND = replace(ADD, id="bmcp_docs_find", name="find")
TOOLS = (ADD, FIND)
ASKED = b'{"model":"gpt-5.2","input":"hi","stream":true}'
THREE = ToolResult(content=({"type": "text", "text": "3"},))
SIZES = pytest.mark.parametrize("size", [0, 1, 7, 1000])

OURS = call("a", ADD.id, '{"n": 1}')
OWN = call("own", "weigh", '{"item":"tin"}')
SEARCH: Json = {
    "id": "ws_1",
    "type": "web_search_call",
    "status": "completed",
    "action": {"type": "search", "query": "tin"},
}
PATCH: Json = {"id": "ctc_1", "type": "custom_tool_call", "call_id": "call_p", "name": "patch", "input": "+"}
SUM: Json = {
    "input_tokens": 40,
    "input_tokens_details": {"cached_tokens": 10},
    "output_tokens": 14,
    "output_tokens_details": {"reasoning_tokens": 4},
    "total_tokens": 54,
}


def splice(asked: bytes = ASKED, whole: bool = False) -> Splice:
    made = responses.offer(asked, FACTS, TOOLS)
    assert made.tools == TOOLS
    return (responses.blocking_splice if whole else responses.splice)(made, FACTS)


def feed(fold: Splice, data: bytes, size: int = 0) -> bytes:
    size = size or len(data) or 1
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join([fold.feed(piece) for piece in pieces]) + fold.end()


def ran(fold: Splice, result: ToolResult = THREE) -> Json:
    """The next request's body, once the tools have run."""
    assert fold.awaits_tools
    assert not fold.complete
    calls = [one for one in fold.turn().tool_calls if one.name in (ADD.id, FIND.id)]
    return json.loads(fold.follow_up([(one, result) for one in calls]))


def streamed(
    *said: Json, size: int = 0, asked: bytes = ASKED, way: Callable[[bytes], bytes] = bytes
) -> bytes:
    """What the client gets of such answers, the last of which wants nothing more."""
    fold, out = splice(asked), b""
    for one in said[:-1]:
        out += feed(fold, way(stream(one)), size)
        ran(fold)
    out += feed(fold, way(stream(said[-1])), size)
    assert (fold.awaits_tools, fold.complete, fold.exact) == (False, True, False)
    return out


def blocking(*said: Json, asked: bytes = ASKED) -> bytes:
    fold = splice(asked, whole=True)
    for one in said[:-1]:
        assert feed(fold, dumps(one), 50) == b""
        ran(fold)
    out = feed(fold, dumps(said[-1]), 50)
    assert (fold.awaits_tools, fold.complete) == (False, True)
    return out


# The body


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        (b"", b',"tools":[%s],"parallel_tool_calls":false'),
        (b',"tools": null', b',"tools":[%s],"parallel_tool_calls":false'),
        (b',"tools" : [ ]', b',"tools":[%s],"parallel_tool_calls":false'),
        (
            b',"tools":[ {"type":"web_search"}, {"type":"kind", "x":1.0}]',
            b',"tools":[ {"type":"web_search"}, {"type":"kind", "x":1.0},%s],"parallel_tool_calls":false',
        ),
        (
            b',"parallel_tool_calls":true,"tools":[]',
            b',"parallel_tool_calls":false,"tools":[%s]',
        ),
        (
            b',"tool_choice":"required","store":true',
            b',"tool_choice":"required","store":true,"tools":[%s],"parallel_tool_calls":false',
        ),
    ],
)
def test_tools_stand_after_the_clients_own(own: bytes, wanted: bytes) -> None:
    """Every other value stays byte for byte, and its members where they were."""
    listed = b",".join(
        b'{"type":"function","name":"%s","description":"Adds.",'
        b'"parameters":{"type":"object","properties":{}},"strict":false}' % tool.id.encode()
        for tool in TOOLS
    )
    head = b'{"model":"gpt-5.2","input":[{"role":"user","content":"\\u00e9 1e5"}],"n":1.50E+2'
    made = responses.offer(head + own + b"}", FACTS, TOOLS)
    assert made.body == head + wanted % listed + b"}"
    assert (made.tools, made.strips_encrypted) == (TOOLS, False)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "$defs": {"n": {"type": "number"}}, "properties": {"a": {"$ref": "#/$defs/n"}}},
        {"type": "object", "properties": {}, "additionalProperties": False},
        {"$ref": "#/$defs/it", "$defs": {"it": {"type": "object"}}},
    ],
)
def test_schemas_are_whole(schema: Json) -> None:
    made = responses.offer(ASKED, FACTS, (replace(ADD, input_schema=schema),))
    (tool,) = json.loads(made.body)["tools"]
    assert tool["parameters"] == {"type": "object", "properties": {}, **schema}
    assert tool["strict"] is False


@pytest.mark.parametrize(
    "asked",
    [
        b'{"model":"m","input":"hi","tool_choice":"none"}',
        b'{"model":"m","input":"hi","tool_choice":"n\\u006fne"}',
        b'{"model":"m","input":"hi","tools":{}}',
        b'{"model":"m","input":"hi","tools":"all"}',
        b'{"model":"m","input":"hi","store":false,"include":"all"}',
        b'{"model":"m","input":7}',
        b'{"model":"m","input":{"role":"user"}}',
        b'{"model":"m","input":"hi","input":"there"}',
        b'{"model":"m","input":"hi","tools":[],"tools":[]}',
        b'{"model":"m","input":"hi","prompt":{"id":"pmpt_1"}}',
        b'{"model":"m","prompt":{"id":"pmpt_1"},"tools":null}',
        b'["model"]',
        b"{",
    ],
)
def test_bodies_that_go_on_as_they_came(asked: bytes) -> None:
    made = responses.offer(asked, FACTS, TOOLS)
    assert (made.body, made.tools, made.strips_encrypted) == (asked, (), False)


def test_a_tool_that_the_client_has_by_that_name_is_the_clients() -> None:
    asked = ASKED[:-1] + b',"tools":[{"type":"function","name":"bmcp_docs_add"}]}'
    made = responses.offer(asked, FACTS, TOOLS)
    assert made.tools == (FIND,)
    assert [tool["name"] for tool in json.loads(made.body)["tools"]] == [ADD.id, FIND.id]


@pytest.mark.parametrize(
    ("said", "include"),
    [
        (b'"store":false', ["reasoning.encrypted_content"]),
        (b'"store":false,"include":null', ["reasoning.encrypted_content"]),
        (b'"store":false,"include":[]', ["reasoning.encrypted_content"]),
        (b'"store":false,"include":["a"]', ["a", "reasoning.encrypted_content"]),
        (b'"store":false,"include":["reasoning.encrypted_content"]', None),
        (b'"store":true,"include":["a"]', None),
        (b'"store":null', None),
        (b'"x":1', None),
    ],
)
def test_encrypted_thoughts_are_asked_for(said: bytes, include: list[str] | None) -> None:
    """Without them what is not stored could not be sent back."""
    asked = ASKED[:-1] + b"," + said + b"}"
    made = responses.offer(asked, FACTS, TOOLS)
    assert made.strips_encrypted is (include is not None)
    assert json.loads(made.body).get("include") == (include or json.loads(asked).get("include"))


@pytest.mark.parametrize("model", ["gpt-4.1", "gpt-4o-mini", "chatgpt-4o-latest", "gpt-3.5-turbo"])
def test_a_model_without_thoughts_is_not_asked_for_them(model: str) -> None:
    asked = b'{"model":"%s","input":"hi","store":false}' % model.encode()
    made = responses.offer(asked, responses.read(asked), TOOLS)
    assert made.tools == TOOLS
    assert "include" not in json.loads(made.body)


# No offered tool is called


def _lines(data: bytes) -> bytes:
    """JSON over several lines."""
    found = [sse.parse(one) for one in sse.split(data)]
    return b"".join(
        sse.encode(name.decode(), json.dumps(json.loads(data), indent=1).encode()) for name, data in found
    )


WAYS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "CRLF": lambda data: data.replace(b"\n", b"\r\n"),
    "CR": lambda data: data.replace(b"\n", b"\r"),
    "comments": lambda data: data.replace(b"\n\n", b"\n\n: here\n\n"),
    "no names": lambda data: re.sub(rb"(?m)^event: .*\n", b"", data),
    "no blanks": lambda data: re.sub(rb"(?m)^(event|data): ", rb"\1:", data),
    "names last": lambda data: re.sub(rb"(?m)^(event: .*)\n(data: .*)\n", rb"\2\n\1\n", data),
    "lines": _lines,
    "DONE": lambda data: data + b"data: [DONE]\n\n",
    "no last line": lambda data: data[:-2],
    "no numbers": lambda data: re.sub(rb',"sequence_number":\d+', b"", data),
}
EACH_WAY = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
STREAMS = [one for one in ALL if one.streaming and one.route.endswith("/responses") and not one.is_message]
ANSWERS = [
    one for one in ALL if not one.streaming and one.route.endswith("/responses") and not one.is_message
]


@SIZES
@pytest.mark.parametrize("exchange", STREAMS, ids=lambda one: one.name)
def test_a_stream_without_offered_calls_is_the_upstreams(exchange: object, size: int) -> None:
    fold = splice()
    assert feed(fold, exchange.answer, size) == exchange.answer
    assert not fold.awaits_tools


@pytest.mark.parametrize("exchange", ANSWERS, ids=lambda one: one.name)
def test_an_answer_without_offered_calls_is_the_upstreams(exchange: object) -> None:
    fold = splice(whole=True)
    assert feed(fold, exchange.answer, 100) == exchange.answer
    assert (fold.awaits_tools, fold.complete) == (False, True)


PLAIN = response("resp_1", thought("rs_1", "Hm."), text("msg_1", "Tin is", 'an "ore"'), SEARCH, OWN, PATCH)


@SIZES
@EACH_WAY
def test_every_way_of_writing_passes(way: Callable[[bytes], bytes], size: int) -> None:
    fold, said = splice(), way(stream(PLAIN))
    assert feed(fold, said, size) == said
    assert (fold.awaits_tools, fold.complete) == (False, True)


@pytest.mark.parametrize(
    "data",
    [
        b"data: [1]\n\n",
        b"data: nothing of JSON\n\n",
        b'data: {"type":"response.output_item.added"}\n\n',
        b'data: {"type":"response.output_item.done","item":7,"output_index":"x"}\n\n',
        b'data: {"type":"response.completed"}\n\n',
        b'data: {"type":"response.completed","response":[]}\n\n',
        b'event: response.completed\ndata: {"type":"response.completed","response":{"output":{}}}\n\n',
        b'data: {"type":"response.output_item.added","item":{"type":"function_call","name":7}}\n\n',
        b"event: \xff\ndata: {}\n\n",
        b"data: " + b"[" * 100_000 + b"\n\n",
        b'event: response.output_text.delta\ndata: {"type":"resp',
    ],
)
@pytest.mark.parametrize("size", [0, 1000])
def test_what_cannot_be_made_out_passes(data: bytes, size: int) -> None:
    for said in (data, stream(PLAIN) + data, data + stream(PLAIN)):
        fold = splice()
        assert feed(fold, said, size) == said
        assert not fold.awaits_tools


def test_text_is_given_as_it_comes() -> None:
    """What comes before an item for the client is held back; from then on each event passes at once."""
    fold, shown = splice(), False
    held: list[bytes] = []
    for one in events(response("resp_1", thought("rs_1", "Hm."), text("msg_1", "Tin is"))):
        shown = shown or one.get("item", {}).get("type") == "message"
        held.append(event(one))
        assert fold.feed(held[-1]) == (b"".join(held) if shown else b"")
        held = [] if shown else held
    assert shown


# Rounds that the client never sees


@SIZES
@EACH_WAY
def test_a_round_of_thoughts_and_offered_calls_is_not_shown(way: Callable[[bytes], bytes], size: int) -> None:
    """The client sees the last response with its own ids and numbers; its usage alone is another."""
    rounds = [
        response("resp_1", thought("rs_1", "Hm."), OURS),
        response("resp_2", call("b", FIND.id)),
        response("resp_3", text("msg_1", "3 it is")),
    ]
    out = streamed(*rounds, size=size, way=way)
    total = {
        "input_tokens": 60,
        "input_tokens_details": {"cached_tokens": 15},
        "output_tokens": 21,
        "output_tokens_details": {"reasoning_tokens": 6},
        "total_tokens": 81,
    }
    assert told(out) == told(way(stream({**rounds[2], "usage": total})))
    assert told(out)[-1]["response"]["usage"] == total
    last = b'"type":"response.completed"'
    if way is bytes:
        assert out.partition(last)[0] == stream(rounds[2]).partition(last)[0]


def test_all_of_the_last_answer_but_its_usage_stays_as_it_stands() -> None:
    odd = b'{"id":"resp_2", "x":1.50e1,"output":[ {"type":"message","id":"m", "a":"\\u00e9"} ],"usage":null}'
    event = b'event: response.completed\ndata: {"type":"response.completed", "response":%s}\n\n'
    fold = splice()
    assert feed(fold, stream(response("resp_1", OURS, usage={"input_tokens": 2}))) == b""
    ran(fold)
    changed = (
        odd.replace(b'"resp_2", ', b'"resp_2",')
        .replace(b"null", b'{"input_tokens":2}')
        .replace(b" ],", b" ],")
    )
    assert feed(fold, event % odd) == event.replace(b'", "', b'","') % changed


def test_nothing_comes_of_an_answer_that_is_not_shown() -> None:
    """Nor of what follows its last event."""
    fold = splice()
    for one in events(response("resp_1", thought("rs_1", "Hm."), OURS)):
        assert fold.feed(event(one)) == b""
    assert fold.awaits_tools
    assert fold.feed(b": here\n\ndata: [DONE]\n\n") == b""
    assert fold.end() == b""
    assert fold.awaits_tools


# Rounds of which something was shown

SAID = text("msg_1", "I add.", phase="commentary")
ROUNDS = {
    "text first": [
        response("resp_1", thought("rs_1", "Hm."), SAID, OURS),
        response("resp_2", thought("rs_2", "So."), text("msg_2", "3 it is")),
    ],
    "text between": [
        response("resp_1", OURS),
        response("resp_2", SAID, call("b", FIND.id)),
        response("resp_3", thought("rs_3"), call("c", ADD.id)),
        response("resp_4", text("msg_4", "3 it is")),
    ],
    "offered first": [response("resp_1", call("a", ADD.id), SAID), response("resp_2", text("msg_2", "3"))],
    "hosted first": [response("resp_1", SEARCH, OURS), response("resp_2", text("msg_2", "3"))],
    "two at once": [
        response("resp_1", SAID, OURS, call("b", FIND.id)),
        response("resp_2", text("msg_2", "3")),
    ],
    "then own": [response("resp_1", SAID, OURS), response("resp_2", thought("rs_2"), OWN)],
    "mixed": [response("resp_1", thought("rs_1"), OURS, OWN, call("b", FIND.id), PATCH)],
    "mixed later": [response("resp_1", SAID, OURS), response("resp_2", call("b", ADD.id), OWN)],
}
EACH = pytest.mark.parametrize("rounds", ROUNDS.values(), ids=ROUNDS)


def is_offered(item: Json) -> bool:
    return item.get("name") in (ADD.id, FIND.id)


def shown(rounds: list[Json]) -> list[Json]:
    """What the client should see, told plainly: the items of rounds that hold anything for it."""
    seen = [[item for item in one["output"] if not is_offered(item)] for one in rounds]
    for_client = [any(item["type"] != "reasoning" for item in items) for items in seen]
    return [item for items, some in zip(seen, for_client, strict=True) if some for item in items]


def expected(rounds: list[Json]) -> list[Json]:
    """The events that the client should see: those of one response of all that it sees."""
    first = next(one for one in rounds if shown([one]))
    items = shown(rounds)
    seen = [*events(first)[:2], *events(response("", *items))[2:]]
    seen[-1]["response"] = {**rounds[-1], "output": items, "usage": total(rounds)}
    return seen


def total(rounds: list[Json]) -> Json:
    """Every one of them has used the same."""
    return json.loads(
        re.sub(r"\d+", lambda count: str(int(count[0]) * len(rounds)), json.dumps(rounds[0]["usage"]))
    )


@SIZES
@EACH
def test_the_client_sees_one_response(rounds: list[Json], size: int) -> None:
    """Indexes and numbers go on without gaps; one beginning, and one end: the last response's."""
    assert told(streamed(*rounds, size=size)) == expected(rounds)


@EACH_WAY
@EACH
def test_the_client_sees_one_response_each_way(rounds: list[Json], way: Callable[[bytes], bytes]) -> None:
    found = told(streamed(*rounds, way=way))
    wanted = expected(rounds)
    if not any("sequence_number" in one for one in found):
        wanted = [{key: one[key] for key in one if key != "sequence_number"} for one in wanted]
    assert found == wanted


@EACH
def test_a_blocking_answer_holds_what_the_stream_would(rounds: list[Json]) -> None:
    found = json.loads(blocking(*rounds))
    assert found == {**rounds[-1], "output": shown(rounds), "usage": total(rounds)}
    assert found == told(streamed(*rounds))[-1]["response"]


def test_one_round_with_something_hidden_keeps_its_usage_as_it_stands() -> None:
    rounds = ROUNDS["mixed"]
    data = dumps(rounds[0]).replace(b'"input_tokens":20', b'"input_tokens": 2E1')
    fold = splice(whole=True)
    assert b'"input_tokens": 2E1' in feed(fold, data)


def scripted(seed: int) -> list[Json]:
    """Rounds of any items, the last of which is for the client."""
    chance, rounds = random.Random(seed), []
    for number in range(chance.randint(1, 4)):
        kinds: list[Callable[[str], Json]] = [
            lambda it: thought(f"rs_{it}", "Hm."),
            lambda it: text(f"msg_{it}", "one two"),
            lambda it: {**SEARCH, "id": f"ws_{it}"},
            lambda it: call(it, chance.choice(TOOLS).id),
        ]
        items = [chance.choice(kinds)(f"{number}_{place}") for place in range(chance.randint(0, 5))]
        rounds.append(response(f"resp_{number}", *items, call(f"{number}", ADD.id)))
    last = chance.choice([text("msg_end", "done"), call("end", "weigh")])
    return [*rounds, response("resp_end", thought("rs_end"), last)]


@pytest.mark.parametrize("seed", range(60))
def test_any_rounds_make_one_response(seed: int) -> None:
    rounds = scripted(seed)
    assert told(streamed(*rounds, size=seed)) == expected(rounds)
    assert json.loads(blocking(*rounds)) == expected(rounds)[-1]["response"]


def test_events_of_items_that_are_told_by_id_alone() -> None:
    """An upstream that leaves the indexes out."""
    rounds = ROUNDS["text first"]
    out, fold = b"", splice()
    for one in rounds:
        out += feed(fold, re.sub(rb',"output_index":\d+', b"", stream(one)))
        if one is not rounds[-1]:
            ran(fold)
    wanted = [{key: one[key] for key in one if key != "output_index"} for one in expected(rounds)]
    assert told(out) == wanted


def test_items_whose_ids_change_from_event_to_event() -> None:
    """They are known by their index; each call is told once."""
    said = re.sub(
        rb'"(id|item_id)":"(fc|rs|msg)_\w+"',
        lambda found: b'"%s":"x%d"' % (found[1], found.start()),
        stream(ROUNDS["text first"][0]),
    )
    fold = splice()
    out = feed(fold, said)
    assert [one.get("output_index") for one in told(out)] == [None, None, *[0] * 6, *[1] * 7]
    assert [one.id for one in fold.turn().tool_calls] == ["call_a"]
    assert fold.awaits_tools


def test_an_upstream_that_tells_items_at_the_end_alone() -> None:
    whole = response("resp_1", OURS)
    said = [one for one in events(whole) if "item" not in one and "item_id" not in one]
    fold = splice()
    assert feed(fold, b"".join(map(event, said))) == b""
    assert fold.awaits_tools


# Who is to go on


@pytest.mark.parametrize(
    ("items", "wants"),
    [
        ([OURS], True),
        ([OURS, call("b", FIND.id)], True),
        ([SAID, OURS], True),
        ([OURS, SAID], True),
        ([SEARCH, OURS], True),
        ([{"type": "mcp_list_tools", "id": "mcpl_1", "tools": []}, OURS], True),
        ([{"type": "mcp_call", "id": "mcp_1", "name": "add", "output": "3"}, OURS], True),
        (
            [
                {"type": "shell_call", "id": "sh_1", "call_id": "call_s"},
                {"type": "shell_call_output", "id": "sho_1", "call_id": "call_s"},
                OURS,
            ],
            True,
        ),
        ([OWN], False),
        ([OWN, OURS], False),
        ([OURS, OWN], False),
        ([OURS, PATCH], False),
        ([{"type": "shell_call", "id": "sh_1", "call_id": "call_s"}, OURS], False),
        ([{"type": "computer_call", "id": "cu_1", "call_id": "call_c"}, OURS], False),
        ([{"type": "mcp_approval_request", "id": "mcpr_1", "name": "add"}, OURS], False),
        ([{"type": "call_of_tomorrow_call", "id": "x_1", "call_id": "call_x"}, OURS], False),
        ([SAID], False),
        ([thought("rs_1", "Hm.")], False),
        ([], False),
    ],
)
def test_the_bridge_goes_on_for_offered_calls_alone(items: list[Json], wants: bool) -> None:
    """What the API has run itself waits for nobody; what the client must answer ends the turn."""
    for whole, data in ((True, dumps(response("r", *items))), (False, stream(response("r", *items)))):
        fold = splice(whole=whole)
        out = feed(fold, data)
        assert fold.awaits_tools is wants
        assert ADD.id.encode() not in out


CUT = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
FAILED = {"status": "failed", "error": {"code": "server_error", "message": "oh"}}


@pytest.mark.parametrize("items", [[OURS], [SAID, OURS], [thought("rs_1", "Hm."), OURS]])
@pytest.mark.parametrize("bad", [CUT, FAILED])
@pytest.mark.parametrize("before", [0, 1, 2])
def test_an_answer_that_went_wrong_is_the_last(items: list[Json], bad: Json, before: int) -> None:
    """Nothing is run, and what was held back is shown; the offered call is not."""
    rounds = [response("resp_1", OURS), response("resp_2", SAID, OURS)][:before]
    last = response("resp_9", *items, usage=None, **bad)
    found = told(streamed(*rounds, last))
    items = shown(rounds) + [item for item in items if not is_offered(item)]
    assert found[-1]["type"] == f"response.{bad['status']}"
    used = total(rounds) if rounds else None
    assert found[-1]["response"] == {**last, "output": items, "usage": used}
    assert [one["item"] for one in found if one["type"].endswith("item.done")] == items
    assert [one["sequence_number"] for one in found] == list(range(len(found)))
    assert found[-1]["response"] == json.loads(blocking(*rounds, last))


@pytest.mark.parametrize("after", [b"", stream(response("resp_1", OURS))[-900:]])
def test_an_error_event_is_the_end(after: bytes) -> None:
    begun = events(response("resp_1", OURS))[:3]
    error = {"type": "error", "code": "server_error", "message": "oh", "param": None, "sequence_number": 3}
    last = event(events(response("resp_1", OURS))[-1]) if after else b""
    fold = splice()
    out = told(feed(fold, b"".join(map(event, [*begun, error])) + last))
    assert [one["type"] for one in out][:3] == ["response.created", "response.in_progress", "error"]
    assert [one["sequence_number"] for one in out] == list(range(len(out)))
    assert not fold.awaits_tools
    assert fold.turn().failure.type == "server_error"


def test_a_stream_that_just_ends_gives_what_was_held_back() -> None:
    """But for the offered call, which is not run."""
    said = events(response("resp_1", thought("rs_1", "Hm."), OURS))[:-1]
    fold = splice()
    out = feed(fold, b"".join(map(event, said)))
    assert out == b"".join(event(one) for one in said if one.get("output_index") != 1)
    assert (fold.awaits_tools, fold.complete) == (False, False)
    assert fold.end() == b""


@pytest.mark.parametrize(("kept", "last"), [(5, "one"), (7, " three")])
@SIZES
def test_a_text_that_is_cut_has_its_numbers(kept: int, last: str, size: int) -> None:
    """Its last event came without its blank line."""
    fold, first = splice(), response("resp_1", SAID, OURS)
    out = feed(fold, stream(first))
    ran(fold)
    begun = [event(one) for one in events(response("resp_2", text("msg_2", "one two three")))]
    out += feed(fold, b"".join(begun[:kept])[:-2], size)
    wanted = expected([first, response("resp_2", text("msg_2", "one two three"))])
    assert told(out) == wanted[: len(told(out))]
    assert told(out)[-1]["delta"] == last
    assert (fold.awaits_tools, fold.complete) == (False, False)


# Encrypted thoughts

SECRET = thought("rs_1", "Hm.", encrypted="gAAA+/=")
CONCEALED = ASKED[:-1] + b',"store":false}'
REVEALED = ASKED[:-1] + b',"store":false,"include":["reasoning.encrypted_content"]}'


def without_secrets(found: object) -> object:
    if isinstance(found, list):
        return [without_secrets(one) for one in found]
    if isinstance(found, dict):
        return {key: without_secrets(value) for key, value in found.items() if key != "encrypted_content"}
    return found


@pytest.mark.parametrize(
    "rounds",
    [
        [response("resp_1", SECRET, text("msg_1", "Tin"))],
        [response("resp_1", SECRET, SAID, OURS), response("resp_2", {**SECRET, "id": "rs_2"}, OWN)],
        [response("resp_1", SECRET, **CUT)],
    ],
    ids=["one", "two", "cut"],
)
@EACH_WAY
def test_secrets_are_shown_to_who_asked_for_them(rounds: list[Json], way: Callable[[bytes], bytes]) -> None:
    revealed = streamed(*rounds, way=way, asked=REVEALED)
    concealed = streamed(*rounds, way=way, asked=CONCEALED)
    assert b"gAAA" in revealed
    assert b"encrypted_content" not in concealed
    assert told(concealed) == without_secrets(told(revealed))
    revealed, concealed = blocking(*rounds, asked=REVEALED), blocking(*rounds, asked=CONCEALED)
    assert b"gAAA" in revealed
    assert json.loads(concealed) == without_secrets(json.loads(revealed))


def test_other_secrets_are_none_of_ours() -> None:
    """A compaction's content is the client's to send back."""
    item = {"id": "cmp_1", "type": "compaction", "encrypted_content": "gAAA+/="}
    said = stream(response("resp_1", item, text("msg_1", 'no "encrypted_content" here')))
    assert feed(splice(CONCEALED), said) == said


# What the upstream is asked next


def test_the_next_request_holds_all_that_was_said() -> None:
    """Items as they stood, byte for byte, hidden ones too, and the results after them."""
    asked = (
        b'{"model":"gpt-5.2","instructions":"\\u00e9","previous_response_id":"resp_0","store":false,'
        b'"input":[ {"role":"user","content":"hi", "x":1.0} ],"stream":true}'
    )
    items = [
        b'{"type":"reasoning", "id":"rs_1","encrypted_content":"gAA\\/A\\u003d","summary":[]}',
        b'{"type":"message","id":"msg_1","content":[{"type":"output_text", "text":"\\ud83d"}]}',
        b'{"type":"function_call","id":"fc_1","call_id":"call_1","name":"bmcp_docs_add", "arguments":"{ }"}',
    ]
    done = b'event: response.output_item.done\ndata: {"type":"response.output_item.done","output_index":%d,"item":%s}\n\n'
    end = b'data: {"type":"response.completed","response":{"output":[%s]}}\n\n' % b",".join(items)
    output = b'{"type":"function_call_output","call_id":"call_1","output":"3"}'
    wanted = b'"input":[ {"role":"user","content":"hi", "x":1.0} ,%s]' % b",".join([*items, output])
    for whole in (False, True):
        fold = splice(asked, whole)
        first = responses.offer(asked, FACTS, TOOLS).body
        said = b"".join(done % (index, item) for index, item in enumerate(items)) + end
        feed(fold, b'{"output":[%s]}' % b", ".join(items) if whole else said, 100)
        calls = [(one, THREE) for one in fold.turn().tool_calls]
        body = fold.follow_up(calls)
        assert body == first.replace(b'"input":[ {"role":"user","content":"hi", "x":1.0} ]', wanted)


def given(*rounds: Json, asked: bytes) -> list[object]:
    """The inputs of the requests after such answers."""
    fold, found = splice(asked), []
    for one in rounds:
        feed(fold, stream(one))
        found.append(ran(fold)["input"])
    return found


TWO = (response("resp_1", thought("rs_1"), OURS), response("resp_2", SAID, call("b", FIND.id)))


def output(id: str) -> Json:
    return {"type": "function_call_output", "call_id": f"call_{id}", "output": "3"}


HI = {"type": "message", "role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("asked", "first"),
    [
        ({"input": "hi"}, [HI]),
        ({"input": [HI, HI]}, [HI, HI]),
        ({"input": []}, []),
        ({"previous_response_id": "resp_0"}, []),
        ({"input": None, "prompt": {"id": "pmpt_1"}, "tools": []}, []),
        ({"input": "hi", "conversation": None}, [HI]),
    ],
)
def test_rounds_are_put_after_the_input(asked: Json, first: list[Json]) -> None:
    second = [*first, *TWO[0]["output"], output("a")]
    third = [*second, *TWO[1]["output"], output("b")]
    assert given(*TWO, asked=dumps(asked)) == [second, third]


@pytest.mark.parametrize("conversation", ["conv_1", {"id": "conv_1"}])
@pytest.mark.parametrize("asked", [{"input": "hi"}, {}])
def test_a_conversation_is_given_the_new_items_alone(conversation: object, asked: Json) -> None:
    asked = {**asked, "conversation": conversation}
    assert given(*TWO, asked=dumps(asked)) == [[output("a")], [output("b")]]


PICTURE = {"type": "image", "data": "aGk=", "mimeType": "image/png"}
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,aGk="}


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (THREE, "3"),
        (ToolResult(content=({"type": "text", "text": "a"}, {"type": "text", "text": "b"})), "a\nb"),
        (ToolResult(), ""),
        (ToolResult(structured={"sum": 3}), '{"sum":3}'),
        (ToolResult(is_error=True, error="gone"), "Error: gone"),
        (ToolResult(content=({"type": "text", "text": "no"},), is_error=True), "Error: no"),
        (ToolResult(content=({"type": "audio", "data": "aGk=", "mimeType": "audio/wav"},)), "[content of type audio/wav left out]"),
        (ToolResult(content=(PICTURE,)), [IMAGE]),
        (
            ToolResult(content=({"type": "text", "text": "a"}, PICTURE)),
            [{"type": "input_text", "text": "a"}, IMAGE],
        ),
        (ToolResult(content=(PICTURE,), is_error=True), [{"type": "input_text", "text": "Error:"}, IMAGE]),
    ],
)  # fmt: skip
def test_results_in_the_apis_form(result: ToolResult, said: object) -> None:
    fold = splice()
    feed(fold, stream(response("resp_1", OURS)))
    assert ran(fold, result)["input"][-1] == {**output("a"), "output": said}


def test_several_calls_have_a_result_each() -> None:
    fold = splice(whole=True)
    feed(fold, dumps(response("resp_1", OURS, call("b", FIND.id))))
    assert [one.name for one in fold.turn().tool_calls] == [ADD.id, FIND.id]
    assert ran(fold)["input"][-2:] == [output("a"), output("b")]


def test_each_round_is_a_turn_of_its_own() -> None:
    fold = splice()
    feed(fold, stream(TWO[0]))
    turn = fold.turn()
    assert (turn.response_id, turn.usage.output_tokens) == ("resp_1", 7)
    assert turn.tool_calls == (ToolCall("call_a", ADD.id, '{"n": 1}', "fc_a"),)
    ran(fold)
    assert fold.turn().response_id == ""
    feed(fold, stream(TWO[1]))
    turn = fold.turn()
    assert (turn.response_id, turn.usage.output_tokens) == ("resp_2", 7)
    assert [one.id for one in turn.tool_calls] == ["call_b"]
    assert [one.content for one in turn.thoughts] == ["I add."]
