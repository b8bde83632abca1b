"""Central tools on Anthropic's routes: blocks, costs, counted tokens, and Bedrock."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.conftest import MakeApp
from tests.support import bedrock, claude
from tests.support.claude import message, text, thought, use
from tests.support.mcp import ScriptedMcp
from tests.support.server import PREFIX, Server, wait_until
from tests.support.sse import read_events
from tests.support.tool_dialects import ADD, CALLS, ENDS, MESSAGES, Answer
from tests.support.upstream import Upstream, event_stream, http_response

OFFERED_USE = use("toolu_1", ADD, a=1, b=2)
CLIENT_USE = use("toolu_2", "Bash", command="ls")
CALLS_TOOL = message("msg_1", thought("hm", "c2ln"), text("Let me add."), OFFERED_USE, stop="tool_use")
ENDS_TURN = message("msg_2", text("It is 3."))


def enqueue(upstream: Upstream, streaming: bool, *messages: dict[str, Any]) -> None:
    for answer in messages:
        upstream.enqueue(*claude.steps(answer, streaming, 11))


def test_blocks_of_all_rounds_stay_apart(toolbridge: Server, upstream: Upstream, streaming: bool) -> None:
    enqueue(upstream, streaming, CALLS_TOOL, ENDS_TURN)
    seen = MESSAGES.use_package(toolbridge.url, streaming)
    assert (seen["id"], seen["stop_reason"]) == ("msg_1", "end_turn")
    assert [block["type"] for block in seen["content"]] == ["thinking", "text", "text"]
    assert seen["content"][0]["signature"] == "c2ln"
    assert [block["text"] for block in seen["content"][1:]] == ["Let me add.", "It is 3."]
    assert (seen["usage"]["input_tokens"], seen["usage"]["output_tokens"]) == (20, 10)
    sent, follow_up = (json.loads(received.body) for received in upstream.requests)
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [text("3")]}
    turns = [{"role": "assistant", "content": CALLS_TOOL["content"]}, {"role": "user", "content": [result]}]
    assert follow_up == {**sent, "messages": [*sent["messages"], *turns]}


def test_a_call_is_run_if_the_turn_ends_with_it(
    toolbridge: Server, upstream: Upstream, streaming: bool
) -> None:
    """Some upstreams say `end_turn` of it."""
    enqueue(upstream, streaming, message("msg_1", OFFERED_USE, stop="end_turn"), ENDS_TURN)
    seen = MESSAGES.use_package(toolbridge.url, streaming)
    assert [block["text"] for block in seen["content"]] == ["It is 3."]
    assert len(upstream.requests) == 2


def test_tokens_are_counted_without_the_tools(toolbridge: Server, upstream: Upstream) -> None:
    body = MESSAGES.request(True)
    upstream.enqueue(*MESSAGES.steps(ENDS, True))
    client = toolbridge.connect()
    client.send("POST", f"{MESSAGES.path}/count_tokens", body)
    assert client.head()[0] == 200
    assert client.chunks() == (MESSAGES.stream(ENDS), True)
    assert upstream.requests[0].body == body


def test_the_cost_is_that_of_all_turns(toolbridge: Server, upstream: Upstream, streaming: bool) -> None:
    again = message("msg_2", use("toolu_9", ADD, a=3), stop="tool_use")
    last = message("msg_3", text("6"), CLIENT_USE, stop="tool_use")
    enqueue(upstream, streaming, CALLS_TOOL, again, last)
    id = toolbridge.post(MESSAGES.path, MESSAGES.request(streaming))[3]
    assert toolbridge.record(id)["cost_micros"] == 3 * (10 * 5 + 5 * 25)


def test_each_answer_costs_what_it_costs_alone(
    make_app: MakeApp, upstream: Upstream, docs: ScriptedMcp
) -> None:
    """Tokens of this model cost double in requests above 200,000."""
    client = make_app(mcp_servers=[{"name": "docs", "url": docs.url}]).test_client()
    wait_until(lambda: client.get(f"{PREFIX}/readyz").status_code == 200)
    model = {"model": "claude-sonnet-4-5"}
    used = {"input_tokens": 70_000, "cache_read_input_tokens": 10_000, "cache_creation_input_tokens": 10_000}
    first, second = (
        {**message(id, OFFERED_USE, stop="tool_use", **used), **model} for id in ("msg_1", "msg_2")
    )
    enqueue(upstream, True, first, second, {**message("msg_3", text("x"), **used), **model})
    body = client.post(PREFIX + MESSAGES.path, data=MESSAGES.request(True, **model)).get_data()
    assert read_events(body)[-2]["usage"]["input_tokens"] == 210_000
    (record,) = client.get(f"{PREFIX}/interceptions").get_json()["results"]
    assert record["cost_micros"] == 3 * (70_000 * 3 + 3000 + 37_500 + 5 * 15)


def test_what_served_inside_an_answer_has_rows_and_costs_of_its_own(
    toolbridge: Server, upstream: Upstream, streaming: bool
) -> None:
    """A model that advises, here without a price, does not cost what the model asked for costs."""
    advice = {"type": "advisor_message", "model": "a-model-of-nobody", "input_tokens": 3, "output_tokens": 2}
    compaction = {"type": "compaction", "input_tokens": 1000, "output_tokens": 100}
    first = message("msg_1", OFFERED_USE, stop="tool_use", iterations=[compaction, compaction])
    for second in (ENDS_TURN, message("msg_2", text("3"), iterations=[advice])):
        enqueue(upstream, streaming, first, second)
        record = toolbridge.record(toolbridge.post(MESSAGES.path, MESSAGES.request(streaming))[3])
        names = ("provider_response_id", "model", "input_tokens", "output_tokens")
        rows = [tuple(usage[name] for name in names) for usage in record["token_usages"]]
        compacted = ("msg_1", claude.MODEL, 1000, 100)
        own = [(id, claude.MODEL, 10, 5) for id in ("msg_1", "msg_2")]
        advised = [("msg_2", "a-model-of-nobody", 3, 2)] if second is not ENDS_TURN else []
        assert rows == [own[0], compacted, compacted, own[1], *advised]
        assert record["cost_micros"] == 1020 * 5 + 110 * 25 + 1000 * 5 + 100 * 25
        assert record["cost_status"] == ("partly" if advised else "priced")


def event(type: str, **members: object) -> bytes:
    data = json.dumps({"type": type, **members})
    return f"event: {type}\ndata: {data}\n\n".encode()


def test_blocks_that_contradict_each_other_end_the_answer(toolbridge: Server, upstream: Upstream) -> None:
    """A second block takes the place of the offered call, and the model stops for it all the same."""
    start = {**message("msg_1"), "content": [], "stop_reason": None}
    upstream.enqueue(
        *event_stream(
            event("message_start", message=start)
            + event("content_block_start", index=0, content_block=use("toolu_1", ADD))
            + event("content_block_start", index=0, content_block=text(""))
            + event("content_block_stop", index=0)
            + event("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 5})
            + event("message_stop")
        )
    )
    status, body, whole, id = toolbridge.post(MESSAGES.path, MESSAGES.request(True))
    assert (status, whole) == (200, False)
    assert MESSAGES.read_error(body, True)["message"] == "the AI provider's answer broke off"
    assert toolbridge.record(id)["error_type"] == "server_error"


def bedrock_steps(answer: Answer, streaming: bool) -> list[bytes]:
    """The answer as Bedrock sends it: a frame of its own for each event."""
    if not streaming:
        return [http_response(200, MESSAGES.whole(answer))]
    data = re.findall(rb"^data: (.*)$", MESSAGES.stream(answer), re.MULTILINE)
    return bedrock.event_stream(bedrock.frames(data), 17)


def test_a_dialogue_runs_on_bedrock(toolbridge: Server, upstream: Upstream, streaming: bool) -> None:
    for answer in (CALLS, ENDS):
        upstream.enqueue(*bedrock_steps(answer, streaming))
    status, body, whole, id = toolbridge.post("/bedrock/v1/messages", MESSAGES.request(streaming))
    assert (status, whole) == (200, True)
    assert MESSAGES.read(body, streaming).text.endswith("It is 3.")
    assert b"bmcp_" not in body
    assert [bedrock.signer(received) for received in upstream.requests] == [bedrock.ACCESS_KEY] * 2
    follow_up = json.loads(upstream.requests[1].body)
    assert follow_up["anthropic_version"] == "bedrock-2023-05-31"
    assert follow_up["messages"][1]["content"] == MESSAGES.to_json(CALLS)["content"]
    assert len(toolbridge.record(id)["token_usages"]) == 2
