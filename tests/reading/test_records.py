"""What is recorded of an interception, and how it is read."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from flask.testing import FlaskClient
from genai_prices import Usage, calc_price

from aibridge_flask import Actor
from tests.conftest import BOTH_DATABASES, MakeApp
from tests.support.exchanges import RECORDED, load
from tests.support.server import PREFIX
from tests.support.upstream import Upstream, event_stream, http_response

pytestmark = BOTH_DATABASES
MESSAGES = "/anthropic/v1/messages"
RECORDED_BY_NAME = {one.name: one for one in load(RECORDED)}
needs_recorded = pytest.mark.skipif(
    not RECORDED_BY_NAME, reason="recorded exchanges are not at hand (../shared/fixtures)"
)


def exchange(
    client: FlaskClient, upstream: Upstream, path: str, ask: object, *said: object, **headers: str
) -> str:
    """One interception; gives its id."""
    upstream.enqueue(*said)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = ask if isinstance(ask, bytes) else json.dumps(ask).encode()
    response = client.post(PREFIX + path, data=body, headers=named, buffered=True)
    return str(response.headers["X-AIBridge-Interception-Id"])


def records(client: FlaskClient, query: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"{PREFIX}/interceptions{query}").get_json()["results"]
    return found


@pytest.fixture
def client(make_app: MakeApp) -> FlaskClient:
    return make_app().test_client()


def message(*blocks: dict[str, object], **more: object) -> bytes:
    usage = {"input_tokens": 10, "output_tokens": 20}
    return json.dumps(
        {
            "id": "msg_1",
            "type": "message",
            "model": "claude-sonnet-4-5-20250929",
            "content": blocks,
            "usage": usage,
            **more,
        }
    ).encode()


def user(*content: object) -> dict[str, object]:
    return {"role": "user", "content": content[0] if isinstance(content[0], str) else list(content)}


def test_an_interception_holds_who_asked_what_and_how_it_went(
    client: FlaskClient, upstream: Upstream
) -> None:
    ask = {"model": "claude-sonnet-4-5", "messages": [user("how many?")]}
    id = exchange(
        client,
        upstream,
        MESSAGES,
        ask,
        http_response(200, message({"type": "text", "text": "two"})),
        User_Agent="claude-cli/2.1",
        X_Claude_Code_Session_Id=" s-1 ",
    )
    (record,) = records(client)
    times = [record.pop(name) for name in ("started_at", "first_byte_at", "ended_at")]
    assert times == sorted(times)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", time) for time in times)
    for name in ("request_sha256", "response_sha256"):
        assert re.fullmatch(r"[0-9a-f]{64}", record.pop(name))
    for part in ("token_usages", "user_prompts"):
        for row in record[part]:
            row.pop("created_at")
    cost = calc_price(Usage(input_tokens=10, output_tokens=20), "claude-sonnet-4-5").total_price
    assert record == {
        "id": id, "initiator_id": "local", "initiator": {"id": "local", "username": "local"}, "metadata": {},
        "provider": "anthropic", "provider_name": "anthropic", "model": "claude-sonnet-4-5", "client": "Claude Code",
        "client_session_id": "s-1", "user_agent": "claude-cli/2.1", "credential_kind": "centralized",
        "credential_hint": "sk-a...6789", "correlating_tool_call_id": "", "thread_parent_id": None, "thread_root_id": None,
        "agent_id": "", "parent_agent_id": "", "route": "/v1/messages", "streaming": False, "status_code": 200,
        "error_type": "", "error_message": "", "wire_exact": True, "cost_micros": round(cost * 1_000_000),
        "token_usages": [{
            "turn": 0, "provider_response_id": "msg_1", "model": "claude-sonnet-4-5-20250929", "input_tokens": 10, "output_tokens": 20,
            "cache_read_input_tokens": 0, "cache_write_input_tokens": 0, "metadata": {},
        }],
        "user_prompts": [{"provider_response_id": "msg_1", "prompt": "how many?"}],
        "tool_usages": [], "model_thoughts": [],
    }  # fmt: skip


PROMPTS = [
    ([user("plain")], "plain"),
    ([user({"type": "text", "text": "a"}, {"type": "text", "text": "b"})], "b"),
    (
        [
            user(
                {"type": "text", "text": "mine"},
                {"type": "text", "text": "<system-reminder>not</system-reminder>"},
            )
        ],
        "mine",
    ),
    ([user({"type": "text", "text": "<system-reminder>only</system-reminder>"})], ""),
    ([user("<system-reminder>only</system-reminder>")], ""),
    ([user("first"), {"role": "system", "content": "# Environment"}], "first"),
    (
        [
            user("first"),
            {"role": "system", "content": "a"},
            {"role": "system", "content": [{"type": "text", "text": "b"}]},
        ],
        "first",
    ),
    ([user("old"), {"role": "assistant", "content": "prefill"}], ""),
    ([user({"type": "tool_result", "tool_use_id": "t", "content": "out"})], ""),
    (
        [
            user(
                {"type": "tool_result", "tool_use_id": "t", "content": "out"},
                {"type": "text", "text": "and now?"},
            )
        ],
        "and now?",
    ),
    ([], ""),
    ([user({"type": "image", "source": {}})], ""),
]


@pytest.mark.parametrize(("messages", "prompt"), PROMPTS)
def test_the_prompt_is_the_users_own_last_words(
    client: FlaskClient, upstream: Upstream, messages: list[object], prompt: str
) -> None:
    exchange(client, upstream, MESSAGES, {"model": "m", "messages": messages}, http_response(200, message()))
    (record,) = records(client)
    assert [one["prompt"] for one in record["user_prompts"]] == ([prompt] if prompt else [])


RESPONSES_INPUTS = [
    ("text", "text", ""),
    ([{"role": "user", "content": "a"}], "a", ""),
    (
        [
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}],
            }
        ],
        "a\nb",
        "",
    ),
    (
        [
            {"role": "user", "content": "<environment_context>"},
            {"role": "user", "content": "mine"},
            {"role": "developer", "content": "x"},
        ],
        "mine",
        "",
    ),
    (
        [
            {"role": "user", "content": "a"},
            {"type": "function_call_output", "call_id": "call_9", "output": "x"},
        ],
        "",
        "call_9",
    ),
    ([{"type": "custom_tool_call_output", "call_id": "call_8", "output": "x"}], "", "call_8"),
    ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "", ""),
]


@pytest.mark.parametrize(("given", "prompt", "call"), RESPONSES_INPUTS)
def test_responses_inputs_are_read(
    client: FlaskClient, upstream: Upstream, given: object, prompt: str, call: str
) -> None:
    exchange(
        client, upstream, "/openai/v1/responses", {"model": "m", "input": given}, http_response(200, b"{}")
    )
    (record,) = records(client)
    assert [one["prompt"] for one in record["user_prompts"]] == ([prompt] if prompt else [])
    assert record["correlating_tool_call_id"] == call


def test_a_failed_requests_prompt_has_no_response_id(client: FlaskClient, upstream: Upstream) -> None:
    body = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
    exchange(client, upstream, MESSAGES, {"model": "m", "messages": [user("hi")]}, http_response(529, body))
    (record,) = records(client)
    assert (record["status_code"], record["error_type"], record["error_message"]) == (
        529,
        "overloaded",
        "Overloaded",
    )
    assert [(one["prompt"], one["provider_response_id"]) for one in record["user_prompts"]] == [("hi", "")]
    assert record["token_usages"] == []
    assert record["cost_micros"] is None


@pytest.mark.parametrize(
    ("status", "type"),
    [(400, "bad_request"), (401, "unauthorized"), (403, "unauthorized"), (404, "bad_request"), (408, "timeout"), (429, "rate_limited"),
     (500, "server_error"), (503, "overloaded"), (504, "timeout"), (302, "unknown")],
)  # fmt: skip
def test_an_upstreams_error_has_its_type(
    client: FlaskClient, upstream: Upstream, status: int, type: str
) -> None:
    exchange(
        client,
        upstream,
        MESSAGES,
        {"model": "m", "messages": []},
        http_response(status, b"<html>", "Location: /x"),
        X_Api_Key="sk-ant-own-0123456789",
    )
    (record,) = records(client)
    assert (record["status_code"], record["error_type"]) == (status, type)


def test_threads_follow_tool_calls(client: FlaskClient, upstream: Upstream) -> None:
    def turn(number: int, *content: object) -> str:
        call = {"type": "tool_use", "id": f"toolu_{number}", "name": "Read", "input": {}}
        return exchange(
            client,
            upstream,
            MESSAGES,
            {"model": "m", "messages": [user(*content)]},
            http_response(200, message(call)),
        )

    first = turn(1, "go")
    second = turn(2, {"type": "tool_result", "tool_use_id": "toolu_1"})
    third = turn(
        3,
        {"type": "tool_result", "tool_use_id": "toolu_0"},
        {"type": "tool_result", "tool_use_id": "toolu_2"},
    )
    stranger = turn(4, {"type": "tool_result", "tool_use_id": "toolu_99"})
    found = {one["id"]: (one["thread_parent_id"], one["thread_root_id"]) for one in records(client)}
    assert found == {
        first: (None, None),
        second: (first, first),
        third: (second, first),
        stranger: (None, None),
    }


@pytest.mark.parametrize("switch", ["prompts", "tool_inputs", "thoughts"])
def test_what_is_switched_off_is_not_stored(make_app: MakeApp, upstream: Upstream, switch: str) -> None:
    client = make_app(records={switch: False}).test_client()
    content = [
        {"type": "thinking", "thinking": "hmm"},
        {"type": "tool_use", "id": "t", "name": "Read", "input": {"path": "x"}},
    ]
    exchange(
        client,
        upstream,
        MESSAGES,
        {"model": "m", "messages": [user("hi")]},
        http_response(200, message(*content)),
    )
    (record,) = records(client)
    stored = {
        "prompts": bool(record["user_prompts"]),
        "tool_inputs": bool(record["tool_usages"][0]["input"]),
        "thoughts": bool(record["model_thoughts"]),
    }
    assert stored == {name: name != switch for name in stored}


def test_text_that_no_database_takes_is_mended(client: FlaskClient, upstream: Upstream) -> None:
    ask = b'{"model":"m","messages":[{"role":"user","content":"a\\ud800b\\u0000c"}]}'
    exchange(client, upstream, MESSAGES, ask, http_response(200, message()))
    (record,) = records(client)
    assert record["user_prompts"][0]["prompt"] == "a?b\ufffdc"


def test_own_prices_win(make_app: MakeApp, upstream: Upstream) -> None:
    prices = {"mine": {"input": 2.0, "output": 3.0, "cache_read": 0.5, "cache_write": 5.0}}
    client = make_app(prices=prices).test_client()
    usage = {
        "input_tokens": 1,
        "output_tokens": 10,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 1000,
    }
    exchange(
        client,
        upstream,
        MESSAGES,
        {"model": "mine", "messages": []},
        http_response(200, message(usage=usage)),
    )
    assert records(client)[0]["cost_micros"] == 2 + 30 + 50 + 5000


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_coded_bodies_pass_as_they_are_and_are_read(
    client: FlaskClient, upstream: Upstream, coding: str
) -> None:
    import gzip
    import zlib

    import brotli
    import zstandard

    encode = {
        "gzip": gzip.compress,
        "deflate": zlib.compress,
        "br": brotli.compress,
        "zstd": zstandard.compress,
    }[coding]
    ask = encode(json.dumps({"model": "m", "messages": [user("packed")]}).encode())
    told = encode(message({"type": "thinking", "thinking": "hmm"}))
    exchange(
        client,
        upstream,
        MESSAGES,
        ask,
        http_response(200, told, f"Content-Encoding: {coding}"),
        Content_Encoding=coding,
    )
    assert upstream.requests[0].body == ask
    assert upstream.requests[0].header("Content-Encoding") == coding
    (record,) = records(client)
    assert record["user_prompts"][0]["prompt"] == "packed"
    assert record["model_thoughts"][0]["content"] == "hmm"
    assert record["wire_exact"]


def test_several_frames_are_one_body(client: FlaskClient, upstream: Upstream) -> None:
    import zstandard

    halves = b'{"model":"m","mess', b'ages":[{"role":"user","content":"hi"}]}'
    ask = b"".join(map(zstandard.compress, halves))
    exchange(client, upstream, MESSAGES, ask, http_response(200, message()), Content_Encoding="zstd")
    assert records(client)[0]["user_prompts"][0]["prompt"] == "hi"


ODD_ANSWERS = [
    (
        "/openai/v1/chat/completions",
        {"id": "c", "choices": [{"message": {"tool_calls": [None, 5, {"id": "t", "function": "x"}]}}]},
    ),
    ("/openai/v1/chat/completions", {"id": "c", "choices": {"a": 1}, "usage": [1]}),
    (
        "/openai/v1/responses",
        {"id": "r", "output": [None, {"type": "reasoning", "summary": [3]}], "usage": "x"},
    ),
    (
        MESSAGES,
        {
            "id": 5,
            "content": [None, {"type": "tool_use", "input": [1]}],
            "usage": {"output_tokens": 10**30, "cache_creation": 7},
        },
    ),
]


@pytest.mark.parametrize(("path", "told"), ODD_ANSWERS)
@pytest.mark.parametrize("streaming", [False, True])
def test_odd_answers_pass_and_are_recorded(
    client: FlaskClient, upstream: Upstream, path: str, told: object, streaming: bool
) -> None:
    body = json.dumps(told).encode()
    said = event_stream(b"data: " + body + b"\n\n") if streaming else [http_response(200, body)]
    ask = {"model": "claude-sonnet-4-5", "messages": [], "input": "", "stream": streaming}
    upstream.enqueue(*said)
    response = client.post(PREFIX + path, data=json.dumps(ask), buffered=True)
    assert response.get_data() == (b"data: " + body + b"\n\n" if streaming else body)
    (record,) = records(client)
    assert record["ended_at"]
    assert record["error_type"] == ("unknown" if streaming else "")


def test_an_actors_id_may_be_a_number(make_app: MakeApp, upstream: Upstream) -> None:
    app = make_app()
    app.extensions["aibridge"].actor_loader(lambda request: Actor(5, {"team": 7}, admin=True))
    client = app.test_client()
    exchange(
        client,
        upstream,
        "/second/v1/messages",
        {"model": "m"},
        http_response(200, message()),
        X_Api_Key="own",
    )
    assert upstream.requests[0].header("X-AI-Bridge-Actor-ID") == "5"
    assert (records(client)[0]["initiator_id"], records(client)[0]["metadata"]) == ("5", {"team": "7"})


def test_a_bomb_is_413(make_app: MakeApp, upstream: Upstream) -> None:
    import gzip

    client = make_app(max_body_bytes=1 << 20).test_client()
    bomb = gzip.compress(b"\0" * (8 << 20))
    response = client.post(PREFIX + MESSAGES, data=bomb, headers={"Content-Encoding": "gzip"})
    assert response.status_code == 413
    assert upstream.requests == []


def test_records_are_searched_and_paged(client: FlaskClient, upstream: Upstream) -> None:
    ids = [
        exchange(
            client,
            upstream,
            MESSAGES,
            {"model": f"model {n % 2}", "messages": []},
            http_response(200, message()),
            User_Agent="codex_exec/1" if n == 3 else "x",
            Session_Id="s 3",
        )
        for n in range(5)
    ]
    newest_first = ids[::-1]

    def found(query: str) -> list[str]:
        return [one["id"] for one in records(client, query)]

    assert found("") == newest_first
    assert found("?limit=2") == newest_first[:2]
    assert found("?limit=2&offset=1") == newest_first[1:3]
    assert found(f"?limit=2&after_id={newest_first[1]}") == newest_first[2:4]
    assert found('?q=model:"model 1"') == [ids[3], ids[1]]
    assert found('?q=client:Codex+session_id:"s 3"') == [ids[3]]
    assert found(f"?q=session_id:{ids[0]}") == [ids[0]]
    assert found("?q=initiator:me+provider:anthropic+provider_name:anthropic&limit=1") == newest_first[:1]
    assert found("?q=initiator:somebody") == []
    assert found("?q=started_before:2020-01-01T00:00:00Z") == []
    assert found("?q=started_after:2020-01-01T00:00:00%2B02:00") == newest_first
    assert client.get(f"{PREFIX}/interceptions?limit=1").get_json()["count"] == 5


@pytest.mark.parametrize(
    ("query", "field"),
    [("limit=0", "limit"), ("limit=1001", "limit"), ("limit=x", "limit"), ("offset=-1", "offset"), ("q=nonsense", "q"), ("q=colour:red", "q"),
     ('q=model:"open', "q"), ("q=started_after:yesterday", "q"), ("q=started_after:2026-01-01T00:00:00", "q"), ("after_id=nobody", "after_id")],
)  # fmt: skip
def test_a_bad_query_is_told_by_field(client: FlaskClient, query: str, field: str) -> None:
    response = client.get(f"{PREFIX}/interceptions?{query}")
    told = response.get_json()
    assert response.status_code == 400
    assert set(told) == {"message", "detail", "validations"}
    assert told["validations"][0]["field"] == field


FACTS = {
    "anthropic/single_builtin_tool/streaming": (2, 61, 13993, 22, ["Read"], ["thinking"]),
    "anthropic/single_builtin_tool/non-streaming": (5, 84, 23490, 0, ["Read"], ["thinking"]),
    "anthropic/simple/streaming": (18, 240, 0, 0, [], ["thinking"]),
    "anthropic/single_injected_tool/streaming": (7545, 74, 0, 0, ["bmcp_coder_coder_list_workspaces"], []),
    "chatcompletions/simple/streaming": (19, 238, 0, 0, [], []),
    "chatcompletions/single_injected_tool/streaming": (
        4862,
        45,
        0,
        0,
        ["bmcp_coder_coder_list_workspaces"],
        [],
    ),
    "chatcompletions/streaming_injected_tool_no_preamble/streaming": (
        5246,
        65,
        20470,
        0,
        ["bmcp_coder_coder_list_workspaces"],
        [],
    ),
    "blocking/cached_input_tokens/non-streaming": (129, 44, 11904, 0, [], []),
    "blocking/single_builtin_tool_parallel/non-streaming": (
        65,
        30,
        0,
        0,
        ["add", "add"],
        ["reasoning_summary"],
    ),
    "blocking/summary_and_commentary_builtin_tool/non-streaming": (
        58,
        35,
        0,
        0,
        ["add"],
        ["reasoning_summary", "commentary"],
    ),
    "streaming/custom_tool/streaming": (64, 340, 0, 0, ["code_exec"], []),
    "streaming/multi_reasoning_builtin_tool/streaming": (58, 18, 0, 0, ["add"], ["reasoning_summary"] * 2),
    "streaming/commentary_builtin_tool/streaming": (58, 30, 0, 0, ["add"], ["commentary"]),
    "streaming/codex_example/streaming": (4006, 13, 0, 0, [], ["reasoning_summary"]),
}


@needs_recorded
@pytest.mark.parametrize("name", FACTS)
@pytest.mark.parametrize("size", [0, 3])
def test_facts_of_recorded_answers(client: FlaskClient, upstream: Upstream, name: str, size: int) -> None:
    recorded = RECORDED_BY_NAME[name]
    said = (
        event_stream(recorded.answer, size) if recorded.streaming else [http_response(200, recorded.answer)]
    )
    exchange(client, upstream, recorded.route, recorded.request, *said)
    (record,) = records(client)
    (usage,) = record["token_usages"]
    counts = tuple(
        usage[f"{kind}_tokens"] for kind in ("input", "output", "cache_read_input", "cache_write_input")
    )
    tools = [one["tool"] for one in record["tool_usages"]]
    sources = [one["metadata"]["source"] for one in record["model_thoughts"]]
    assert (*counts, tools, sources) == FACTS[name]
    assert record["error_type"] == ""
    for one in record["tool_usages"]:
        assert one["tool_call_id"]
        assert one["provider_response_id"] == usage["provider_response_id"]


@needs_recorded
@pytest.mark.parametrize(
    ("name", "type"),
    [("chatcompletions/stream_error/streaming", "server_error"), ("streaming/stream_error/streaming", "unknown"), ("anthropic/non_stream_error/non-streaming", "bad_request"),
     ("streaming/http_error/streaming", "rate_limited"), ("blocking/wrong_response_format/non-streaming", "unknown")],
)  # fmt: skip
def test_errors_of_recorded_answers(client: FlaskClient, upstream: Upstream, name: str, type: str) -> None:
    recorded = RECORDED_BY_NAME[name]
    status, body = recorded.status_and_body()
    said = event_stream(body) if recorded.streaming and status == 200 else [http_response(status, body)]
    exchange(client, upstream, recorded.route, recorded.request, *said)
    (record,) = records(client)
    assert record["error_type"] == type
    assert record["error_message"]
