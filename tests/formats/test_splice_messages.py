"""Several answers of Anthropic's become one: bytes in, bytes out."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from aibridge_flask.formats import MESSAGES
from aibridge_flask.model import Offer, Tool, ToolResult
from aibridge_flask.protocols import Splice
from tests.support import claude
from tests.support.claude import message, text, thought, use
from tests.support.exchanges import ALL, Exchange

ADD = Tool("bmcp_docs_add", "docs", "http://docs/mcp", "add", "Adds.", {"type": "object"})
FIND = Tool(
    "bmcp_docs_find", "docs", "http://docs/mcp", "find", "Finds.", {"$defs": {"x": {}}, "type": "object"}
)
ASK = {"model": "claude-opus-4-5", "messages": [{"role": "user", "content": "hi"}]}
SIZES = [1, 2, 7, 64, 1 << 20]
MINE = use("toolu_1", ADD.id, a=1, b=2)
THEIRS = use("toolu_2", "Bash", command="ls")
GIVEN = ToolResult(({"type": "text", "text": "3"},))


def offered(ask: dict[str, Any] = ASK, *tools: Tool) -> Offer:
    body = json.dumps(ask).encode()
    return MESSAGES.offer(body, MESSAGES.read(body), tools or (ADD, FIND))


def fed(fold: Splice, data: bytes, size: int = 1 << 20) -> bytes:
    pieces = [fold.feed(data[place : place + size]) for place in range(0, len(data), size)]
    return b"".join(pieces) + fold.end()


def spliced(
    *answers: dict[str, Any], streaming: bool = True, size: int = 1 << 20, result: ToolResult = GIVEN
) -> tuple[bytes, list[dict[str, Any]]]:
    """What the client hears of these answers, and the bodies that asked for the later ones."""
    offer = offered()
    fold = (MESSAGES.splice if streaming else MESSAGES.blocking_splice)(offer, MESSAGES.read(offer.body))
    out, bodies = b"", []
    for place, one in enumerate(answers):
        out += fed(fold, claude.stream(one) if streaming else claude.whole(one), size)
        assert fold.awaits_tools is (place < len(answers) - 1)
        if fold.awaits_tools:
            calls = [call for call in fold.turn().tool_calls if call.name == ADD.id]
            bodies.append(json.loads(fold.follow_up([(call, result) for call in calls])))
    assert fold.complete
    return out, bodies


def events(stream: bytes) -> list[dict[str, Any]]:
    return [json.loads(data) for data in re.findall(rb"^data: (.*)$", stream, re.MULTILINE)]


def seen(stream: bytes) -> dict[str, Any]:
    """The message that a client puts together; every rule of the stream's grammar holds."""
    first, *rest = events(stream)
    assert first["type"] == "message_start"
    built, open_at = first["message"], -1
    for event in rest:
        kind, content = event["type"], built["content"]
        if kind == "content_block_start":
            assert open_at == -1
            assert event["index"] == len(content)
            open_at = event["index"]
            content.append({**event["content_block"], "said": ""})
        elif kind == "content_block_delta":
            assert event["index"] == open_at
            delta = event["delta"]
            content[-1]["said"] += next(delta[key] for key in delta if key != "type")
        elif kind == "content_block_stop":
            assert event["index"] == open_at
            open_at = -1
        elif kind == "message_delta":
            built.update(event["delta"])
            built["usage"].update(event["usage"])
    assert rest[-1]["type"] == "message_stop"
    assert [one["type"] for one in rest].count("message_stop") == 1
    return built


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "exchange", [one for one in ALL if "messages" in one.route], ids=lambda one: one.name
)
def test_without_a_call_of_an_offered_tool_no_byte_changes(exchange: Exchange, size: int) -> None:
    offer = offered()
    facts = MESSAGES.read(offer.body)
    fold = (MESSAGES.splice if exchange.streaming else MESSAGES.blocking_splice)(offer, facts)
    assert fed(fold, exchange.answer, size) == exchange.answer
    assert not fold.awaits_tools


@pytest.mark.parametrize("size", SIZES)
def test_rounds_become_one_message(size: int) -> None:
    out, _ = spliced(
        message("msg_1", thought("hm 🤔", "sig=="), text("Let me add."), MINE, stop="tool_use", cache_read_input_tokens=4),
        message("msg_2", text("Once more."), MINE, stop="tool_use"),
        message("msg_3", thought("aha", "sig2"), text("It is 3."), cache_read_input_tokens=6, cache_creation={"ephemeral_5m_input_tokens": 2}),
        size=size,
    )  # fmt: skip
    built = seen(out)
    assert built["id"] == "msg_1"
    assert [block["said"] for block in built["content"]] == [
        "hm 🤔sig==",
        "Let me add.",
        "Once more.",
        "ahasig2",
        "It is 3.",
    ]
    assert built["stop_reason"] == "end_turn"
    assert built["usage"] == {
        "input_tokens": 30,
        "output_tokens": 15,
        "cache_read_input_tokens": 10,
        "cache_creation": {"ephemeral_5m_input_tokens": 2},
    }
    assert b"bmcp_" not in out


def test_a_blocking_answer_holds_what_the_stream_builds() -> None:
    rounds = (
        message("msg_1", text("Let me add."), MINE, stop="tool_use", service_tier="standard"),
        message("msg_2", text("It is 3."), service_tier="standard"),
    )
    built = seen(spliced(*rounds)[0])
    blocking = json.loads(spliced(*rounds, streaming=False)[0])
    for block in built["content"]:
        block["text"] = block.pop("said")
    assert blocking == built


@pytest.mark.parametrize("streaming", [True, False])
def test_the_next_request_holds_what_was_said_and_what_the_tool_gave(streaming: bool) -> None:
    said = [thought('a "quoted" é 🤔', "sig=="), text("Let me add."), MINE]
    _, (body,) = spliced(
        message("msg_1", text(""), *said, stop="tool_use"),
        message("msg_2", text("3")),
        streaming=streaming,
    )
    given = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [text("3")]}
    assert body["messages"] == [
        *ASK["messages"],
        {"role": "assistant", "content": said},
        {"role": "user", "content": [given]},
    ]
    assert {**body, "messages": []} == {**json.loads(offered().body), "messages": []}


def test_a_thought_goes_back_byte_for_byte() -> None:
    """Escapes stay as they were, also one that was cut in two."""
    start = b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}\n\n'
    deltas = [rb'"thinking":"\u00e9\ud83e"', rb'"thinking":"\udd14 \/"', rb'"signature":"ab\/c="']
    kinds = [b"thinking_delta", b"thinking_delta", b"signature_delta"]
    grown = b"".join(
        b'data: {"type":"content_block_delta","index":0,"delta":{"type":"%s",%s}}\n\n' % pair
        for pair in zip(kinds, deltas, strict=True)
    )
    plain = claude.stream(message("msg_1", MINE, stop="tool_use"))
    cut = plain.index(b"event: content_block_start")
    stop = b'data: {"type":"content_block_stop","index":0}\n\n'
    offer = offered()
    fold = MESSAGES.splice(offer, MESSAGES.read(offer.body))
    fed(fold, plain[:cut] + start + grown + stop + plain[cut:].replace(b'"index":0', b'"index":1'))
    (call,) = fold.turn().tool_calls
    body = fold.follow_up([(call, GIVEN)])
    assert rb'{"type":"thinking","thinking":"\u00e9\ud83e\udd14 \/","signature":"ab\/c="}' in body


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize(
    ("content", "stop", "kept"),
    [
        ([MINE, THEIRS], "tool_use", [THEIRS]),
        ([text("x"), THEIRS, MINE], "tool_use", [text("x"), THEIRS]),
        ([text("x"), MINE], "max_tokens", [text("x")]),
        ([MINE], "refusal", []),
    ],
)
def test_a_turn_that_is_not_for_offered_tools_alone_is_finished(
    streaming: bool, content: list[claude.Block], stop: str, kept: list[claude.Block]
) -> None:
    out, bodies = spliced(message("msg_1", *content, stop=stop), streaming=streaming)
    assert bodies == []
    if not streaming:
        assert json.loads(out) == message("msg_1", *kept, stop=stop)
        return
    built = seen(out)
    assert [block.get("name") for block in built["content"]] == [block.get("name") for block in kept]
    assert built["stop_reason"] == stop


def test_unusual_layouts_are_read_too() -> None:
    """CRLF, comments, blanks, the index last, an error at the end."""
    plain = claude.stream(message("msg_1", MINE, THEIRS, stop="tool_use"))
    turned = re.sub(rb'\{"type":"(\w+)","index":(\d),(.*)\}', rb'{ "type" : "\1", \3 , "index" : \2 }', plain)
    odd = b": hello\n\n" + turned.replace(b"\n", b"\r\n")
    offer = offered()
    fold = MESSAGES.splice(offer, MESSAGES.read(offer.body))
    built = seen(fed(fold, odd, 5).replace(b"\r\n", b"\n"))
    assert [block["name"] for block in built["content"]] == ["Bash"]


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
    plain = claude.stream(message("msg_1", use("toolu_1", ADD.id, a=1), stop="tool_use"))
    cut = plain.index(b"event: content_block_start")
    offer = offered()
    fold = MESSAGES.splice(offer, MESSAGES.read(offer.body))
    fold.feed(plain[:cut] + noise + plain[cut:])
    fold.end()
    assert fold.awaits_tools
    (call,) = fold.turn().tool_calls[-1:]
    body = json.loads(fold.follow_up([(call, ToolResult())]))
    assert body["messages"][1]["content"] == [use("toolu_1", ADD.id, a=1)]


def test_an_error_in_the_stream_ends_it() -> None:
    plain = claude.stream(message("msg_1", MINE, stop="tool_use"))
    error = (
        b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
    )
    offer = offered()
    fold = MESSAGES.splice(offer, MESSAGES.read(offer.body))
    assert fed(fold, plain + error).endswith(error)
    assert not fold.awaits_tools
    assert fold.turn().failure.type == "overloaded"


PICTURE = {"type": "image", "data": "aGk=", "mimeType": "image/png"}


@pytest.mark.parametrize(
    ("result", "content", "error"),
    [
        (ToolResult(({"type": "text", "text": "3"},)), [text("3")], False),
        (ToolResult((PICTURE,)), [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}], False),
        (ToolResult(({**PICTURE, "mimeType": "image/tiff"},)), [text("[content of type image/tiff left out]")], False),
        (ToolResult(({"type": "audio", "data": "aGk=", "mimeType": "audio/wav"},)), [text("[content of type audio/wav left out]")], False),
        (ToolResult(({"type": "resource", "resource": {"uri": "a:b", "text": "inside"}},)), [text("inside")], False),
        (ToolResult(({"type": "resource", "resource": {"uri": "a:b", "mimeType": "image/png", "blob": "aGk="}},)), [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}], False),
        (ToolResult(({"type": "resource_link", "uri": "file:///x", "name": "x"},)), [text("x: file:///x")], False),
        (ToolResult(({"type": "text", "text": "3"},), {"n": 3}), [text("3")], False),
        (ToolResult((), {"n": 3}), [text('{"n":3}')], False),
        (ToolResult(), [], False),
        (ToolResult(({"type": "text", "text": "no"},), is_error=True), [text("no")], True),
        (ToolResult(is_error=True), [text("Error: the tool failed and gave no reason")], True),
        (ToolResult(error="the MCP server did not answer in time", is_error=True), [text("Error: the MCP server did not answer in time")], True),
        (ToolResult(({"type": "text", "text": "x" * 2_000_000},)), [text("x" * (1 << 20) + "\n[cut off: too long]")], False),
        (ToolResult(({"type": "new", "n": 1},)), [text('{"type":"new","n":1}')], False),
    ],
)  # fmt: skip
def test_a_result_is_given_in_the_api_s_form(result: ToolResult, content: list[object], error: bool) -> None:
    _, (body,) = spliced(message("m", MINE, stop="tool_use"), message("n", text("x")), result=result)
    (given,) = body["messages"][-1]["content"]
    assert given == {
        "type": "tool_result",
        "tool_use_id": "toolu_1",
        "content": content,
        **({"is_error": True} if error else {}),
    }


OURS = {
    "name": ADD.id,
    "description": "Adds.",
    "input_schema": {"type": "object"},
}
OWN = {"name": "Bash", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize(
    ("ask", "tools", "choice"),
    [
        ({}, [OURS], {"type": "auto"}),
        ({"tools": [], "tool_choice": None}, [OURS], {"type": "auto"}),
        ({"tools": [OWN], "tool_choice": {"type": "any"}}, [OURS, OWN], {"type": "any"}),
        (
            {"tools": [OWN], "tool_choice": {"type": "tool", "name": "Bash"}},
            [OURS, OWN],
            {"type": "tool", "name": "Bash"},
        ),
    ],
)
def test_offered_tools_stand_before_the_client_s(
    ask: dict[str, Any], tools: list[object], choice: dict[str, Any]
) -> None:
    body = json.loads(offered({**ASK, **ask}, ADD).body)
    assert body["tools"] == tools
    assert body["tool_choice"] == {**choice, "disable_parallel_tool_use": True}


def test_no_other_value_s_bytes_change() -> None:
    own = b'[ {"name":"Bash", "input_schema":{"type":"object"}, "cache_control":{"type":"ephemeral"}} ]'
    head = b'{"model":"claude-opus-4-5","temperature":1e0,"system":"\\u00e9\\ud83d",'
    rest = b'"messages":[{"role" : "user","content":"a\\/b"}],"thinking":{"budget_tokens":1.0}}'
    body = head + b'"tools":' + own + b"," + rest
    offer = MESSAGES.offer(body, MESSAGES.read(body), (ADD,))
    assert offer.body.startswith(head + b'"tools":[{"name":"bmcp_docs_add"')
    assert own[1:] + b"," + rest[:-1] in offer.body


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":[],"tool_choice":{"type":"none"}}',
        b'{"model":"claude-haiku-4-5","stream":true,"messages":[]}',
        b'{"model":"m","messages":[],"messages":[]}',
        b'{"model":"m","messages":[],"tools":"x"}',
        b'{"model":"m","messages":[],"tool_choice":"any"}',
        b'{"model":"m","messages":"x"}',
        b'{"model":"m"}',
        b'{"messages":[],"tools":[{"name":"bmcp_docs_add"}]}',
    ],
)
def test_where_tools_cannot_be_offered_the_body_stays(body: bytes) -> None:
    assert MESSAGES.offer(body, MESSAGES.read(body), (ADD,)) == Offer(body)


def test_a_tool_of_the_client_s_own_of_the_same_name_stays_its_own() -> None:
    offer = offered({**ASK, "tools": [{"name": ADD.id}]})
    assert offer.tools == (FIND,)
    fold = MESSAGES.splice(offer, MESSAGES.read(offer.body))
    data = claude.stream(message("msg_1", MINE, stop="tool_use"))
    assert fed(fold, data) == data
    assert not fold.awaits_tools


@pytest.mark.parametrize(("own", "later"), [([], "auto"), ([{"name": "Bash"}], "any")])
def test_who_must_call_a_tool_and_has_called_ours_is_free_if_there_is_no_other(
    own: list[object], later: str
) -> None:
    offer = offered({**ASK, "tools": own, "tool_choice": {"type": "any"}})
    assert json.loads(offer.body)["tool_choice"]["type"] == "any"
    fold = MESSAGES.splice(offer, MESSAGES.read(offer.body))
    fed(fold, claude.stream(message("msg_1", MINE, stop="tool_use")))
    (call,) = fold.turn().tool_calls
    body = json.loads(fold.follow_up([(call, GIVEN)]))
    assert body["tool_choice"] == {"type": later, "disable_parallel_tool_use": True}


def test_schemas_are_passed_on_whole() -> None:
    schema = {
        "$defs": {"n": {"type": "number"}},
        "properties": {"a": {"$ref": "#/$defs/n"}},
        "type": "object",
    }
    tool = Tool("bmcp_docs_sum", "docs", "", "sum", "", schema)
    assert json.loads(offered(ASK, tool).body)["tools"][0]["input_schema"] == schema
