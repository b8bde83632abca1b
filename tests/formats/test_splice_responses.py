"""The splice of Responses: several answers become one, byte for byte."""

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
from tests.support.responses import Json, call, dumps, event, events, response, stream, text, thought
from tests.support.sse import read_events

FACTS = RequestFacts("gpt-5.2", streaming=True)
ADD = Tool("bmcp_docs_add", "docs", "http://docs.example/mcp", "add", "Adds.", {"type": "object"})
FIND = replace(ADD, id="bmcp_docs_find", name="find")
TOOLS = (ADD, FIND)
REQUEST = b'{"model":"gpt-5.2","input":"hi","stream":true}'
THREE = ToolResult(content=({"type": "text", "text": "3"},))
SIZES = pytest.mark.parametrize("size", [0, 1, 7, 1000])

OFFERED_CALL = call("a", ADD.id, '{"n": 1}')
CLIENT_CALL = call("own", "weigh", '{"item":"tin"}')
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


def splice(request_body: bytes = REQUEST, is_blocking: bool = False) -> Splice:
    offer = responses.offer(request_body, FACTS, TOOLS)
    assert offer.tools == TOOLS
    return (responses.blocking_splice if is_blocking else responses.splice)(offer, FACTS)


def feed(fold: Splice, data: bytes, size: int = 0) -> bytes:
    size = size or len(data) or 1
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join([fold.feed(piece) for piece in pieces]) + fold.end()


def follow_up(fold: Splice, result: ToolResult = THREE) -> Json:
    """Returns the next request; every call has the same result."""
    assert fold.awaits_tools
    assert not fold.complete
    calls = [call for call in fold.turn().tool_calls if call.name in (ADD.id, FIND.id)]
    return json.loads(fold.follow_up([(call, result) for call in calls]))


def client_stream(
    *answers: Json, size: int = 0, request_body: bytes = REQUEST, layout: Callable[[bytes], bytes] = bytes
) -> bytes:
    """What the client gets of these answers; the bridge does not continue after the last."""
    fold, out = splice(request_body), b""
    for answer in answers[:-1]:
        out += feed(fold, layout(stream(answer)), size)
        follow_up(fold)
    out += feed(fold, layout(stream(answers[-1])), size)
    assert (fold.awaits_tools, fold.complete, fold.exact) == (False, True, False)
    return out


def blocking_answer(*answers: Json, request_body: bytes = REQUEST) -> bytes:
    fold = splice(request_body, is_blocking=True)
    for answer in answers[:-1]:
        assert feed(fold, dumps(answer), 50) == b""
        follow_up(fold)
    out = feed(fold, dumps(answers[-1]), 50)
    assert (fold.awaits_tools, fold.complete) == (False, True)
    return out


# The first request


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
def test_tools_come_after_the_clients_own(own: bytes, wanted: bytes) -> None:
    """All other members stay byte for byte, in their order."""
    tools = b",".join(
        b'{"type":"function","name":"%s","description":"Adds.",'
        b'"parameters":{"type":"object","properties":{}},"strict":false}' % tool.id.encode()
        for tool in TOOLS
    )
    head = b'{"model":"gpt-4.1","input":[{"role":"user","content":"\\u00e9 1e5"}],"n":1.50E+2'
    request_body = head + own + b"}"
    offer = responses.offer(request_body, responses.read(request_body), TOOLS)
    assert offer.body == head + wanted % tools + b"}"
    assert (offer.tools, offer.strips_encrypted) == (TOOLS, False)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "number", "minimum": 1}}},
        {"type": "object", "properties": {}, "additionalProperties": False},
    ],
)
def test_schemas_are_sent_whole(schema: Json) -> None:
    offer = responses.offer(REQUEST, FACTS, (replace(ADD, input_schema=schema),))
    (tool,) = json.loads(offer.body)["tools"]
    assert tool["parameters"] == {"type": "object", "properties": {}, **schema}
    assert tool["strict"] is False


@pytest.mark.parametrize(
    "request_body",
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
def test_bodies_that_stay_as_they_are(request_body: bytes) -> None:
    offer = responses.offer(request_body, FACTS, TOOLS)
    assert (offer.body, offer.tools, offer.strips_encrypted) == (request_body, (), False)


def test_a_tool_with_the_name_of_a_client_tool_is_left_out() -> None:
    request_body = REQUEST[:-1] + b',"tools":[{"type":"function","name":"bmcp_docs_add"}]}'
    offer = responses.offer(request_body, FACTS, TOOLS)
    assert offer.tools == (FIND,)
    assert [tool["name"] for tool in json.loads(offer.body)["tools"]] == [ADD.id, FIND.id]


@pytest.mark.parametrize(
    ("members", "include"),
    [
        (b'"store":false', ["reasoning.encrypted_content"]),
        (b'"store":false,"include":null', ["reasoning.encrypted_content"]),
        (b'"store":false,"include":[]', ["reasoning.encrypted_content"]),
        (b'"store":false,"include":["a"]', ["a", "reasoning.encrypted_content"]),
        (b'"store":false,"include":["reasoning.encrypted_content"]', None),
        (b'"store":true,"include":["a"]', ["a", "reasoning.encrypted_content"]),
        (b'"store":null', ["reasoning.encrypted_content"]),
        (b'"x":1', ["reasoning.encrypted_content"]),
        (b'"store":false,"conversation":"conv_1"', None),
    ],
)
def test_encrypted_thoughts_are_asked_for(members: bytes, include: list[str] | None) -> None:
    """Without them a response that is not stored could not be sent back; an organisation may store none."""
    request_body = REQUEST[:-1] + b"," + members + b"}"
    offer = responses.offer(request_body, FACTS, TOOLS)
    assert offer.strips_encrypted is (include is not None)
    assert json.loads(offer.body).get("include") == (include or json.loads(request_body).get("include"))


@pytest.mark.parametrize("model", ["gpt-4.1", "gpt-4o-mini", "chatgpt-4o-latest", "gpt-3.5-turbo"])
def test_a_model_without_thoughts_is_not_asked_for_them(model: str) -> None:
    request_body = b'{"model":"%s","input":"hi","store":false}' % model.encode()
    offer = responses.offer(request_body, responses.read(request_body), TOOLS)
    assert offer.tools == TOOLS
    assert "include" not in json.loads(offer.body)


# Answers without a call of an offered tool


def indent_json(data: bytes) -> bytes:
    """JSON over several lines."""
    events = [sse.parse(block) for block in sse.split(data)]
    return b"".join(
        sse.encode(name.decode(), json.dumps(json.loads(data), indent=1).encode()) for name, data in events
    )


LAYOUTS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "CRLF": lambda data: data.replace(b"\n", b"\r\n"),
    "CR": lambda data: data.replace(b"\n", b"\r"),
    "comments": lambda data: data.replace(b"\n\n", b"\n\n: here\n\n"),
    "no names": lambda data: re.sub(rb"(?m)^event: .*\n", b"", data),
    "no blanks": lambda data: re.sub(rb"(?m)^(event|data): ", rb"\1:", data),
    "names last": lambda data: re.sub(rb"(?m)^(event: .*)\n(data: .*)\n", rb"\2\n\1\n", data),
    "lines": indent_json,
    "DONE": lambda data: data + b"data: [DONE]\n\n",
    "no last line": lambda data: data[:-2],
    "no numbers": lambda data: re.sub(rb',"sequence_number":\d+', b"", data),
}
EACH_LAYOUT = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
EXCHANGES = [
    exchange for exchange in ALL if exchange.route.endswith("/responses") and not exchange.is_message
]
STREAMS = [exchange for exchange in EXCHANGES if exchange.streaming]
ANSWERS = [exchange for exchange in EXCHANGES if not exchange.streaming]


@SIZES
@pytest.mark.parametrize("exchange", STREAMS, ids=lambda exchange: exchange.name)
def test_a_stream_without_offered_calls_passes_byte_for_byte(exchange: object, size: int) -> None:
    fold = splice(WITH_INCLUDE)
    assert feed(fold, exchange.answer, size) == exchange.answer
    assert not fold.awaits_tools


@pytest.mark.parametrize("exchange", ANSWERS, ids=lambda exchange: exchange.name)
def test_an_answer_without_offered_calls_passes_byte_for_byte(exchange: object) -> None:
    fold = splice(WITH_INCLUDE, is_blocking=True)
    assert feed(fold, exchange.answer, 100) == exchange.answer
    assert (fold.awaits_tools, fold.complete) == (False, True)


PLAIN = response(
    "resp_1", thought("rs_1", "Hm."), text("msg_1", "Tin is", 'an "ore"'), SEARCH, CLIENT_CALL, PATCH
)


@SIZES
@EACH_LAYOUT
def test_every_layout_passes(layout: Callable[[bytes], bytes], size: int) -> None:
    fold, data = splice(), layout(stream(PLAIN))
    assert feed(fold, data, size) == data
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
def test_malformed_events_pass(data: bytes, size: int) -> None:
    for answer in (data, stream(PLAIN) + data, data + stream(PLAIN)):
        fold = splice()
        assert feed(fold, answer, size) == answer
        assert not fold.awaits_tools


def test_text_passes_as_it_comes() -> None:
    """What comes before an item for the client is held back; from then on each event passes at once."""
    fold, is_shown = splice(), False
    buffered: list[bytes] = []
    for members in events(response("resp_1", thought("rs_1", "Hm."), text("msg_1", "Tin is"))):
        is_shown = is_shown or members.get("item", {}).get("type") == "message"
        buffered.append(event(members))
        assert fold.feed(buffered[-1]) == (b"".join(buffered) if is_shown else b"")
        buffered = [] if is_shown else buffered
    assert is_shown


# Rounds that the client does not see


@SIZES
@EACH_LAYOUT
def test_a_round_of_thoughts_and_offered_calls_is_not_shown(
    layout: Callable[[bytes], bytes], size: int
) -> None:
    """The client sees the last response with its ids and numbers; only the usage is changed."""
    rounds = [
        response("resp_1", thought("rs_1", "Hm."), OFFERED_CALL),
        response("resp_2", call("b", FIND.id)),
        response("resp_3", text("msg_1", "3 it is")),
    ]
    out = client_stream(*rounds, size=size, layout=layout)
    total = {
        "input_tokens": 60,
        "input_tokens_details": {"cached_tokens": 15},
        "output_tokens": 21,
        "output_tokens_details": {"reasoning_tokens": 6},
        "total_tokens": 81,
    }
    assert read_events(out) == read_events(layout(stream({**rounds[2], "usage": total})))
    assert read_events(out)[-1]["response"]["usage"] == total
    last = b'"type":"response.completed"'
    if layout is bytes:
        assert out.partition(last)[0] == stream(rounds[2]).partition(last)[0]


def test_all_of_the_last_answer_but_its_usage_stays_byte_for_byte() -> None:
    odd = b'{"id":"resp_2", "x":1.50e1,"output":[ {"type":"message","id":"m", "a":"\\u00e9"} ],"usage":null}'
    event = b'event: response.completed\ndata: {"type":"response.completed", "response":%s}\n\n'
    fold = splice()
    assert feed(fold, stream(response("resp_1", OFFERED_CALL, usage={"input_tokens": 2}))) == b""
    follow_up(fold)
    changed = (
        odd.replace(b'"resp_2", ', b'"resp_2",')
        .replace(b"null", b'{"input_tokens":2}')
        .replace(b" ],", b" ],")
    )
    assert feed(fold, event % odd) == event.replace(b'", "', b'","') % changed


def test_a_hidden_answer_yields_no_bytes() -> None:
    """Nor does what follows its last event."""
    fold = splice()
    for members in events(response("resp_1", thought("rs_1", "Hm."), OFFERED_CALL)):
        assert fold.feed(event(members)) == b""
    assert fold.awaits_tools
    assert fold.feed(b": here\n\ndata: [DONE]\n\n") == b""
    assert fold.end() == b""
    assert fold.awaits_tools


# Rounds that the client sees in part

COMMENTARY = text("msg_1", "I add.", phase="commentary")
ROUNDS = {
    "text first": [
        response("resp_1", thought("rs_1", "Hm."), COMMENTARY, OFFERED_CALL),
        response("resp_2", thought("rs_2", "So."), text("msg_2", "3 it is")),
    ],
    "text between": [
        response("resp_1", OFFERED_CALL),
        response("resp_2", COMMENTARY, call("b", FIND.id)),
        response("resp_3", thought("rs_3"), call("c", ADD.id)),
        response("resp_4", text("msg_4", "3 it is")),
    ],
    "offered first": [
        response("resp_1", call("a", ADD.id), COMMENTARY),
        response("resp_2", text("msg_2", "3")),
    ],
    "hosted first": [response("resp_1", SEARCH, OFFERED_CALL), response("resp_2", text("msg_2", "3"))],
    "two at once": [
        response("resp_1", COMMENTARY, OFFERED_CALL, call("b", FIND.id)),
        response("resp_2", text("msg_2", "3")),
    ],
    "then own": [
        response("resp_1", COMMENTARY, OFFERED_CALL),
        response("resp_2", thought("rs_2"), CLIENT_CALL),
    ],
    "mixed": [response("resp_1", thought("rs_1"), OFFERED_CALL, CLIENT_CALL, call("b", FIND.id), PATCH)],
    "mixed later": [
        response("resp_1", COMMENTARY, OFFERED_CALL),
        response("resp_2", call("b", ADD.id), CLIENT_CALL),
    ],
}
EACH_DIALOGUE = pytest.mark.parametrize("rounds", ROUNDS.values(), ids=ROUNDS)


def is_offered(item: Json) -> bool:
    return item.get("name") in (ADD.id, FIND.id)


def shown(rounds: list[Json]) -> list[Json]:
    """The items that the client should see: those of rounds that hold anything for it."""
    seen = [[item for item in answer["output"] if not is_offered(item)] for answer in rounds]
    are_shown = [any(item["type"] != "reasoning" for item in items) for items in seen]
    return [item for items, is_shown in zip(seen, are_shown, strict=True) if is_shown for item in items]


def expected(rounds: list[Json]) -> list[Json]:
    """The events that the client should see: those of one response with all items that it sees."""
    first = next(answer for answer in rounds if shown([answer]))
    items = shown(rounds)
    seen = [*events(first)[:2], *events(response("", *items))[2:]]
    seen[-1]["response"] = {**rounds[-1], "output": items, "usage": total(rounds)}
    return seen


def without(name: str, events: list[Json]) -> list[Json]:
    return [{key: value for key, value in event.items() if key != name} for event in events]


def total(rounds: list[Json]) -> Json:
    """The usage of all rounds; each has used the same."""
    return json.loads(
        re.sub(r"\d+", lambda match: str(int(match[0]) * len(rounds)), json.dumps(rounds[0]["usage"]))
    )


@SIZES
@EACH_DIALOGUE
def test_the_client_sees_one_response(rounds: list[Json], size: int) -> None:
    """Indexes and numbers have no gaps; there is one beginning and one end, the last response's."""
    assert read_events(client_stream(*rounds, size=size)) == expected(rounds)


@EACH_LAYOUT
@EACH_DIALOGUE
def test_the_client_sees_one_response_in_each_layout(
    rounds: list[Json], layout: Callable[[bytes], bytes]
) -> None:
    seen = read_events(client_stream(*rounds, layout=layout))
    wanted = expected(rounds)
    if not any("sequence_number" in event for event in seen):
        wanted = without("sequence_number", wanted)
    assert seen == wanted


@EACH_DIALOGUE
def test_a_blocking_answer_holds_what_the_stream_would(rounds: list[Json]) -> None:
    answer = json.loads(blocking_answer(*rounds))
    assert answer == {**rounds[-1], "output": shown(rounds), "usage": total(rounds)}
    assert answer == read_events(client_stream(*rounds))[-1]["response"]


def test_a_single_round_keeps_its_usage_byte_for_byte() -> None:
    rounds = ROUNDS["mixed"]
    data = dumps(rounds[0]).replace(b'"input_tokens":20', b'"input_tokens": 2E1')
    fold = splice(is_blocking=True)
    assert b'"input_tokens": 2E1' in feed(fold, data)


def random_rounds(seed: int) -> list[Json]:
    """Rounds of random items; the last one is for the client."""
    generator, rounds = random.Random(seed), []
    for number in range(generator.randint(1, 4)):
        kinds: list[Callable[[str], Json]] = [
            lambda suffix: thought(f"rs_{suffix}", "Hm."),
            lambda suffix: text(f"msg_{suffix}", "one two"),
            lambda suffix: {**SEARCH, "id": f"ws_{suffix}"},
            lambda suffix: call(suffix, generator.choice(TOOLS).id),
        ]
        items = [generator.choice(kinds)(f"{number}_{index}") for index in range(generator.randint(0, 5))]
        rounds.append(response(f"resp_{number}", *items, call(f"{number}", ADD.id)))
    last = generator.choice([text("msg_end", "done"), call("end", "weigh")])
    return [*rounds, response("resp_end", thought("rs_end"), last)]


@pytest.mark.parametrize("seed", range(60))
def test_any_rounds_make_one_response(seed: int) -> None:
    rounds = random_rounds(seed)
    assert read_events(client_stream(*rounds, size=seed)) == expected(rounds)
    assert json.loads(blocking_answer(*rounds)) == expected(rounds)[-1]["response"]


def test_events_without_indexes_belong_to_items_by_id() -> None:
    rounds = ROUNDS["text first"]
    out, fold = b"", splice()
    for answer in rounds:
        out += feed(fold, re.sub(rb',"output_index":\d+', b"", stream(answer)))
        if answer is not rounds[-1]:
            follow_up(fold)
    assert read_events(out) == without("output_index", expected(rounds))


def test_items_whose_ids_change_from_event_to_event() -> None:
    """They are matched by index; each call is read once."""
    data = re.sub(
        rb'"(id|item_id)":"(fc|rs|msg)_\w+"',
        lambda match: b'"%s":"x%d"' % (match[1], match.start()),
        stream(ROUNDS["text first"][0]),
    )
    fold = splice()
    out = feed(fold, data)
    assert [event.get("output_index") for event in read_events(out)] == [None, None, *[0] * 6, *[1] * 7]
    assert [call.id for call in fold.turn().tool_calls] == ["call_a"]
    assert fold.awaits_tools


def test_items_may_come_in_the_last_event_alone() -> None:
    answer = response("resp_1", OFFERED_CALL)
    without_items = [event for event in events(answer) if "item" not in event and "item_id" not in event]
    fold = splice()
    assert feed(fold, b"".join(map(event, without_items))) == b""
    assert fold.awaits_tools


# Which turns the bridge continues


@pytest.mark.parametrize(
    ("items", "continues"),
    [
        ([OFFERED_CALL], True),
        ([OFFERED_CALL, call("b", FIND.id)], True),
        ([COMMENTARY, OFFERED_CALL], True),
        ([OFFERED_CALL, COMMENTARY], True),
        ([SEARCH, OFFERED_CALL], True),
        ([{"type": "mcp_list_tools", "id": "mcpl_1", "tools": []}, OFFERED_CALL], True),
        ([{"type": "mcp_call", "id": "mcp_1", "name": "add", "output": "3"}, OFFERED_CALL], True),
        (
            [
                {"type": "shell_call", "id": "sh_1", "call_id": "call_s"},
                {"type": "shell_call_output", "id": "sho_1", "call_id": "call_s"},
                OFFERED_CALL,
            ],
            True,
        ),
        ([CLIENT_CALL], False),
        ([CLIENT_CALL, OFFERED_CALL], False),
        ([OFFERED_CALL, CLIENT_CALL], False),
        ([OFFERED_CALL, PATCH], False),
        ([{"type": "shell_call", "id": "sh_1", "call_id": "call_s"}, OFFERED_CALL], False),
        ([{"type": "computer_call", "id": "cu_1", "call_id": "call_c"}, OFFERED_CALL], False),
        ([{"type": "mcp_approval_request", "id": "mcpr_1", "name": "add"}, OFFERED_CALL], False),
        ([{"type": "call_of_tomorrow_call", "id": "x_1", "call_id": "call_x"}, OFFERED_CALL], False),
        ([COMMENTARY], False),
        ([thought("rs_1", "Hm.")], False),
        ([], False),
    ],
)
def test_the_bridge_continues_turns_of_offered_calls_only(items: list[Json], continues: bool) -> None:
    """Tools that the API ran itself do not count; a call that the client must answer ends the turn."""
    for is_blocking, data in ((True, dumps(response("r", *items))), (False, stream(response("r", *items)))):
        fold = splice(is_blocking=is_blocking)
        out = feed(fold, data)
        assert fold.awaits_tools is continues
        assert ADD.id.encode() not in out


CUT = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
FAILED = {"status": "failed", "error": {"code": "server_error", "message": "oh"}}


@pytest.mark.parametrize(
    "items", [[OFFERED_CALL], [COMMENTARY, OFFERED_CALL], [thought("rs_1", "Hm."), OFFERED_CALL]]
)
@pytest.mark.parametrize("failure", [CUT, FAILED])
@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_failed_answer_is_the_last(items: list[Json], failure: Json, before: int) -> None:
    """No tool is run. The items still buffered are shown, except the offered call."""
    rounds = [response("resp_1", OFFERED_CALL), response("resp_2", COMMENTARY, OFFERED_CALL)][:before]
    last = response("resp_9", *items, usage=None, **failure)
    seen = read_events(client_stream(*rounds, last))
    items = shown(rounds) + [item for item in items if not is_offered(item)]
    assert seen[-1]["type"] == f"response.{failure['status']}"
    usage = total(rounds) if rounds else None
    assert seen[-1]["response"] == {**last, "output": items, "usage": usage}
    assert [event["item"] for event in seen if event["type"].endswith("item.done")] == items
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    assert seen[-1]["response"] == json.loads(blocking_answer(*rounds, last))


@pytest.mark.parametrize("after", [b"", stream(response("resp_1", OFFERED_CALL))[-900:]])
def test_an_error_event_is_the_end(after: bytes) -> None:
    begun = events(response("resp_1", OFFERED_CALL))[:3]
    error = {"type": "error", "code": "server_error", "message": "oh", "param": None, "sequence_number": 3}
    last = event(events(response("resp_1", OFFERED_CALL))[-1]) if after else b""
    fold = splice()
    out = read_events(feed(fold, b"".join(map(event, [*begun, error])) + last))
    assert [event["type"] for event in out][:3] == ["response.created", "response.in_progress", "error"]
    assert [event["sequence_number"] for event in out] == list(range(len(out)))
    assert not fold.awaits_tools
    assert fold.turn().failure.type == "server_error"


def test_a_stream_that_just_ends_flushes_the_buffered_events() -> None:
    """Except the offered call, which is not run."""
    begun = events(response("resp_1", thought("rs_1", "Hm."), OFFERED_CALL))[:-1]
    fold = splice()
    out = feed(fold, b"".join(map(event, begun)))
    assert out == b"".join(event(members) for members in begun if members.get("output_index") != 1)
    assert (fold.awaits_tools, fold.complete) == (False, False)
    assert fold.end() == b""


@pytest.mark.parametrize(("count", "last"), [(5, "one"), (7, " three")])
@SIZES
def test_events_of_a_text_that_breaks_off_are_numbered(count: int, last: str, size: int) -> None:
    """Its last event came without its blank line."""
    fold, first = splice(), response("resp_1", COMMENTARY, OFFERED_CALL)
    out = feed(fold, stream(first))
    follow_up(fold)
    begun = [event(members) for members in events(response("resp_2", text("msg_2", "one two three")))]
    out += feed(fold, b"".join(begun[:count])[:-2], size)
    wanted = expected([first, response("resp_2", text("msg_2", "one two three"))])
    assert read_events(out) == wanted[: len(read_events(out))]
    assert read_events(out)[-1]["delta"] == last
    assert (fold.awaits_tools, fold.complete) == (False, False)


# Encrypted thoughts

ENCRYPTED = thought("rs_1", "Hm.", encrypted="gAAA+/=")
WITHOUT_INCLUDE = REQUEST[:-1] + b',"store":false}'
WITH_INCLUDE = REQUEST[:-1] + b',"store":false,"include":["reasoning.encrypted_content"]}'


def without_encrypted(tree: object) -> object:
    if isinstance(tree, list):
        return [without_encrypted(value) for value in tree]
    if isinstance(tree, dict):
        return {key: without_encrypted(value) for key, value in tree.items() if key != "encrypted_content"}
    return tree


@pytest.mark.parametrize(
    "rounds",
    [
        [response("resp_1", ENCRYPTED, text("msg_1", "Tin"))],
        [
            response("resp_1", ENCRYPTED, COMMENTARY, OFFERED_CALL),
            response("resp_2", {**ENCRYPTED, "id": "rs_2"}, CLIENT_CALL),
        ],
        [response("resp_1", ENCRYPTED, **CUT)],
    ],
    ids=["one", "two", "cut"],
)
@EACH_LAYOUT
def test_encrypted_thoughts_are_shown_if_asked_for(
    rounds: list[Json], layout: Callable[[bytes], bytes]
) -> None:
    revealed = client_stream(*rounds, layout=layout, request_body=WITH_INCLUDE)
    concealed = client_stream(*rounds, layout=layout, request_body=WITHOUT_INCLUDE)
    assert b"gAAA" in revealed
    assert b"encrypted_content" not in concealed
    assert read_events(concealed) == without_encrypted(read_events(revealed))
    revealed, concealed = (
        blocking_answer(*rounds, request_body=WITH_INCLUDE),
        blocking_answer(*rounds, request_body=WITHOUT_INCLUDE),
    )
    assert b"gAAA" in revealed
    assert json.loads(concealed) == without_encrypted(json.loads(revealed))


def test_encrypted_content_of_other_items_stays() -> None:
    """The client has to send a compaction's content back."""
    item = {"id": "cmp_1", "type": "compaction", "encrypted_content": "gAAA+/="}
    data = stream(response("resp_1", item, text("msg_1", 'no "encrypted_content" here')))
    assert feed(splice(WITHOUT_INCLUDE), data) == data


# The next request


def test_the_next_request_holds_all_items() -> None:
    """Byte for byte, hidden ones too, and the results after them."""
    request_body = (
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
    for is_blocking in (False, True):
        fold = splice(request_body, is_blocking)
        first = responses.offer(request_body, FACTS, TOOLS).body
        data = b"".join(done % (index, item) for index, item in enumerate(items)) + end
        feed(fold, b'{"output":[%s]}' % b", ".join(items) if is_blocking else data, 100)
        calls = [(call, THREE) for call in fold.turn().tool_calls]
        body = fold.follow_up(calls)
        assert body == first.replace(b'"input":[ {"role":"user","content":"hi", "x":1.0} ]', wanted)


def later_inputs(*rounds: Json, request_body: bytes) -> list[object]:
    """The inputs of the requests after these answers."""
    fold, inputs = splice(request_body), []
    for answer in rounds:
        feed(fold, stream(answer))
        inputs.append(follow_up(fold)["input"])
    return inputs


TWO = (response("resp_1", thought("rs_1"), OFFERED_CALL), response("resp_2", COMMENTARY, call("b", FIND.id)))


def output(id: str) -> Json:
    return {"type": "function_call_output", "call_id": f"call_{id}", "output": "3"}


HI = {"type": "message", "role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("request_body", "first"),
    [
        ({"input": "hi"}, [HI]),
        ({"input": [HI, HI]}, [HI, HI]),
        ({"input": []}, []),
        ({"previous_response_id": "resp_0"}, []),
        ({"input": None, "prompt": {"id": "pmpt_1"}, "tools": []}, []),
        ({"input": "hi", "conversation": None}, [HI]),
    ],
)
def test_rounds_are_appended_to_the_input(request_body: Json, first: list[Json]) -> None:
    second = [*first, *TWO[0]["output"], output("a")]
    third = [*second, *TWO[1]["output"], output("b")]
    assert later_inputs(*TWO, request_body=dumps(request_body)) == [second, third]


@pytest.mark.parametrize("conversation", ["conv_1", {"id": "conv_1"}])
@pytest.mark.parametrize("request_body", [{"input": "hi"}, {}])
def test_a_conversation_is_sent_the_results_alone(conversation: object, request_body: Json) -> None:
    request_body = {**request_body, "conversation": conversation}
    assert later_inputs(*TWO, request_body=dumps(request_body)) == [[output("a")], [output("b")]]


PICTURE = {"type": "image", "data": "aGk=", "mimeType": "image/png"}
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,aGk="}


@pytest.mark.parametrize(
    ("result", "text"),
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
def test_results_have_the_form_of_the_api(result: ToolResult, text: object) -> None:
    fold = splice()
    feed(fold, stream(response("resp_1", OFFERED_CALL)))
    assert follow_up(fold, result)["input"][-1] == {**output("a"), "output": text}


def test_several_calls_have_a_result_each() -> None:
    fold = splice(is_blocking=True)
    feed(fold, dumps(response("resp_1", OFFERED_CALL, call("b", FIND.id))))
    assert [call.name for call in fold.turn().tool_calls] == [ADD.id, FIND.id]
    assert follow_up(fold)["input"][-2:] == [output("a"), output("b")]


def test_each_round_is_a_turn_of_its_own() -> None:
    fold = splice()
    feed(fold, stream(TWO[0]))
    turn = fold.turn()
    assert (turn.response_id, turn.usage.output_tokens) == ("resp_1", 7)
    assert turn.tool_calls == (ToolCall("call_a", ADD.id, '{"n": 1}', "fc_a"),)
    follow_up(fold)
    assert fold.turn().response_id == ""
    feed(fold, stream(TWO[1]))
    turn = fold.turn()
    assert (turn.response_id, turn.usage.output_tokens) == ("resp_2", 7)
    assert [call.id for call in turn.tool_calls] == ["call_b"]
    assert [thought.content for thought in turn.thoughts] == ["I add."]
