"""The records of interceptions, and reading them over HTTP."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from typing import Any

import pytest
from flask.testing import FlaskClient

from aibridge_flask import Actor
from tests.conftest import BOTH_DATABASES, MakeApp
from tests.support.exchanges import RECORDED, load
from tests.support.server import PREFIX
from tests.support.upstream import Upstream, event_stream, http_response

pytestmark = BOTH_DATABASES
MESSAGES = "/anthropic/v1/messages"
RECORDED_BY_NAME = {send_request.name: send_request for send_request in load(RECORDED)}
needs_recorded = pytest.mark.skipif(
    not RECORDED_BY_NAME, reason="recorded exchanges are not at hand (../shared/fixtures)"
)


def send_request(
    client: FlaskClient, upstream: Upstream, path: str, body: object, *steps: object, **headers: str
) -> str:
    """Sends one request; returns the interception's id."""
    upstream.enqueue(*steps)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = client.post(PREFIX + path, data=data, headers=named, buffered=True)
    return str(response.headers["X-AIBridge-Interception-Id"])


def list_records(client: FlaskClient, query: str = "") -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = client.get(f"{PREFIX}/interceptions{query}").get_json()["results"]
    return results


@pytest.fixture
def client(make_app: MakeApp) -> FlaskClient:
    return make_app().test_client()


def message(*blocks: dict[str, object], **members: object) -> bytes:
    usage = {"input_tokens": 10, "output_tokens": 20}
    return json.dumps(
        {
            "id": "msg_1",
            "type": "message",
            "model": "claude-sonnet-4-5-20250929",
            "content": blocks,
            "usage": usage,
            **members,
        }
    ).encode()


def user(*content: object) -> dict[str, object]:
    return {"role": "user", "content": content[0] if isinstance(content[0], str) else list(content)}


def test_a_record_holds_actor_request_and_outcome(client: FlaskClient, upstream: Upstream) -> None:
    body = {"model": "claude-sonnet-4-5", "messages": [user("how many?")]}
    id = send_request(
        client,
        upstream,
        MESSAGES,
        body,
        http_response(200, message({"type": "text", "text": "two"})),
        User_Agent="claude-cli/2.1",
        X_Claude_Code_Session_Id=" s-1 ",
    )
    (record,) = list_records(client)
    times = [record.pop(name) for name in ("started_at", "first_byte_at", "ended_at")]
    assert times == sorted(times)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", time) for time in times)
    for name in ("request_sha256", "response_sha256"):
        assert re.fullmatch(r"[0-9a-f]{64}", record.pop(name))
    for part in ("token_usages", "user_prompts"):
        for row in record[part]:
            row.pop("created_at")
    for name in ("attempts", "overhead_ms", "first_byte_ms", "duration_ms"):
        assert record.pop(name) >= 0
    assert record == {
        "id": id, "initiator_id": "local", "initiator": {"id": "local", "username": "local"}, "metadata": {},
        "provider": "anthropic", "provider_name": "anthropic", "model": "claude-sonnet-4-5", "client": "Claude Code",
        "client_session_id": "s-1", "user_agent": "claude-cli/2.1", "credential_kind": "centralized",
        "credential_hint": "sk-a...6789", "correlating_tool_call_id": "", "thread_parent_id": None, "thread_root_id": None,
        "agent_id": "", "parent_agent_id": "", "route": "/v1/messages", "kind": "main", "streaming": False, "status_code": 200,
        "session_id": "s-1", "groups": [], "token_id": "", "limit_id": "",
        "error_type": "", "error_message": "", "wire_exact": True, "cost_micros": 10 * 3 + 20 * 15,
        "cost_status": "priced", "price_source": "genai-prices", "price_version": version("genai-prices"),
        "token_usages": [{
            "turn": 0, "provider_response_id": "msg_1", "model": "claude-sonnet-4-5-20250929", "input_tokens": 10, "output_tokens": 20,
            "cache_read_input_tokens": 0, "cache_write_input_tokens": 0, "metadata": {},
            "service_tier": "", "speed": "", "inference_geo": "", "cost_micros": 10 * 3 + 20 * 15,
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
def test_the_prompt_is_the_last_text_of_the_user(
    client: FlaskClient, upstream: Upstream, messages: list[object], prompt: str
) -> None:
    send_request(
        client, upstream, MESSAGES, {"model": "m", "messages": messages}, http_response(200, message())
    )
    (record,) = list_records(client)
    assert [prompt["prompt"] for prompt in record["user_prompts"]] == ([prompt] if prompt else [])


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


@pytest.mark.parametrize(("input", "prompt", "call_id"), RESPONSES_INPUTS)
def test_responses_inputs_are_read(
    client: FlaskClient, upstream: Upstream, input: object, prompt: str, call_id: str
) -> None:
    send_request(
        client, upstream, "/openai/v1/responses", {"model": "m", "input": input}, http_response(200, b"{}")
    )
    (record,) = list_records(client)
    assert [prompt["prompt"] for prompt in record["user_prompts"]] == ([prompt] if prompt else [])
    assert record["correlating_tool_call_id"] == call_id


def test_a_failed_requests_prompt_has_no_response_id(client: FlaskClient, upstream: Upstream) -> None:
    body = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
    send_request(
        client, upstream, MESSAGES, {"model": "m", "messages": [user("hi")]}, http_response(529, body)
    )
    (record,) = list_records(client)
    assert (record["status_code"], record["error_type"], record["error_message"]) == (
        529,
        "overloaded",
        "Overloaded",
    )
    assert [(prompt["prompt"], prompt["provider_response_id"]) for prompt in record["user_prompts"]] == [
        ("hi", "")
    ]
    assert record["token_usages"] == []
    assert record["cost_micros"] is None


@pytest.mark.parametrize(
    ("status", "type"),
    [(400, "bad_request"), (401, "unauthorized"), (403, "unauthorized"), (404, "bad_request"), (408, "timeout"), (429, "rate_limited"),
     (500, "server_error"), (503, "overloaded"), (504, "timeout"), (302, "unknown")],
)  # fmt: skip
def test_each_upstream_status_has_its_error_type(
    client: FlaskClient, upstream: Upstream, status: int, type: str
) -> None:
    send_request(
        client,
        upstream,
        MESSAGES,
        {"model": "m", "messages": []},
        http_response(status, b"<html>", "Location: /x"),
        X_Api_Key="sk-ant-own-0123456789",
    )
    (record,) = list_records(client)
    assert (record["status_code"], record["error_type"]) == (status, type)


def test_threads_follow_tool_calls(client: FlaskClient, upstream: Upstream) -> None:
    def turn(number: int, *content: object) -> str:
        call = {"type": "tool_use", "id": f"toolu_{number}", "name": "Read", "input": {}}
        return send_request(
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
    unrelated = turn(4, {"type": "tool_result", "tool_use_id": "toolu_99"})
    threads = {
        record["id"]: (record["thread_parent_id"], record["thread_root_id"])
        for record in list_records(client)
    }
    assert threads == {
        first: (None, None),
        second: (first, first),
        third: (second, first),
        unrelated: (None, None),
    }


@pytest.mark.parametrize("switch", ["prompts", "tool_inputs", "thoughts"])
def test_switched_off_fields_are_not_stored(make_app: MakeApp, upstream: Upstream, switch: str) -> None:
    client = make_app(records={switch: False}).test_client()
    content = [
        {"type": "thinking", "thinking": "hmm"},
        {"type": "tool_use", "id": "t", "name": "Read", "input": {"path": "x"}},
    ]
    send_request(
        client,
        upstream,
        MESSAGES,
        {"model": "m", "messages": [user("hi")]},
        http_response(200, message(*content)),
    )
    (record,) = list_records(client)
    stored = {
        "prompts": bool(record["user_prompts"]),
        "tool_inputs": bool(record["tool_usages"][0]["input"]),
        "thoughts": bool(record["model_thoughts"]),
    }
    assert stored == {name: name != switch for name in stored}


def test_characters_that_databases_reject_are_replaced(client: FlaskClient, upstream: Upstream) -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"a\\ud800b\\u0000c"}]}'
    send_request(client, upstream, MESSAGES, body, http_response(200, message()))
    (record,) = list_records(client)
    assert record["user_prompts"][0]["prompt"] == "a?b\ufffdc"


def test_configured_prices_override_the_built_in_ones(make_app: MakeApp, upstream: Upstream) -> None:
    prices = {"mine": {"input": 2.0, "output": 3.0, "cache_read": 0.5, "cache_write": 5.0}}
    client = make_app(prices=prices).test_client()
    usage = {
        "input_tokens": 1,
        "output_tokens": 10,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 1000,
    }
    send_request(
        client,
        upstream,
        MESSAGES,
        {"model": "mine", "messages": []},
        http_response(200, message(usage=usage)),
    )
    assert list_records(client)[0]["cost_micros"] == 2 + 30 + 50 + 5000


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_encoded_bodies_pass_unchanged_and_are_read(
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
    body = encode(json.dumps({"model": "m", "messages": [user("packed")]}).encode())
    answer = encode(message({"type": "thinking", "thinking": "hmm"}))
    send_request(
        client,
        upstream,
        MESSAGES,
        body,
        http_response(200, answer, f"Content-Encoding: {coding}"),
        Content_Encoding=coding,
    )
    assert upstream.requests[0].body == body
    assert upstream.requests[0].header("Content-Encoding") == coding
    (record,) = list_records(client)
    assert record["user_prompts"][0]["prompt"] == "packed"
    assert record["model_thoughts"][0]["content"] == "hmm"
    assert record["wire_exact"]


def test_several_zstd_frames_are_one_body(client: FlaskClient, upstream: Upstream) -> None:
    import zstandard

    halves = b'{"model":"m","mess', b'ages":[{"role":"user","content":"hi"}]}'
    body = b"".join(map(zstandard.compress, halves))
    send_request(client, upstream, MESSAGES, body, http_response(200, message()), Content_Encoding="zstd")
    assert list_records(client)[0]["user_prompts"][0]["prompt"] == "hi"


MALFORMED_ANSWERS = [
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


@pytest.mark.parametrize(("path", "answer"), MALFORMED_ANSWERS)
@pytest.mark.parametrize("streaming", [False, True])
def test_malformed_answers_pass_and_are_recorded(
    client: FlaskClient, upstream: Upstream, path: str, answer: object, streaming: bool
) -> None:
    body = json.dumps(answer).encode()
    steps = event_stream(b"data: " + body + b"\n\n") if streaming else [http_response(200, body)]
    request = {"model": "claude-sonnet-4-5", "messages": [], "input": "", "stream": streaming}
    upstream.enqueue(*steps)
    response = client.post(PREFIX + path, data=json.dumps(request), buffered=True)
    assert response.get_data() == (b"data: " + body + b"\n\n" if streaming else body)
    (record,) = list_records(client)
    assert record["ended_at"]
    assert record["error_type"] == ("unknown" if streaming else "")


def test_an_actors_id_may_be_a_number(make_app: MakeApp, upstream: Upstream) -> None:
    app = make_app()
    app.extensions["aibridge"].actor_loader(lambda request: Actor(5, {"team": 7}, admin=True))
    client = app.test_client()
    send_request(
        client,
        upstream,
        "/second/v1/messages",
        {"model": "m"},
        http_response(200, message()),
        X_Api_Key="own",
    )
    assert upstream.requests[0].header("X-AI-Bridge-Actor-ID") == "5"
    assert (list_records(client)[0]["initiator_id"], list_records(client)[0]["metadata"]) == (
        "5",
        {"team": "7"},
    )


def test_a_compression_bomb_is_413(make_app: MakeApp, upstream: Upstream) -> None:
    import gzip

    client = make_app(max_body_bytes=1 << 20).test_client()
    bomb = gzip.compress(b"\0" * (8 << 20))
    response = client.post(PREFIX + MESSAGES, data=bomb, headers={"Content-Encoding": "gzip"})
    assert response.status_code == 413
    assert upstream.requests == []


def test_records_can_be_searched_and_paged(client: FlaskClient, upstream: Upstream) -> None:
    ids = [
        send_request(
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

    def search(query: str) -> list[str]:
        return [record["id"] for record in list_records(client, query)]

    assert search("") == newest_first
    assert search("?limit=2") == newest_first[:2]
    assert search("?limit=2&offset=1") == newest_first[1:3]
    assert search(f"?limit=2&after_id={newest_first[1]}") == newest_first[2:4]
    assert search('?q=model:"model 1"') == [ids[3], ids[1]]
    assert search('?q=client:Codex+session_id:"s 3"') == [ids[3]]
    assert search(f"?q=session_id:{ids[0]}") == [ids[0]]
    assert search("?q=initiator:me+provider:anthropic+provider_name:anthropic&limit=1") == newest_first[:1]
    assert search("?q=initiator:somebody") == []
    assert search("?q=started_before:2020-01-01T00:00:00Z") == []
    assert search("?q=started_after:2020-01-01T00:00:00%2B02:00") == newest_first
    assert client.get(f"{PREFIX}/interceptions?limit=1").get_json()["count"] == 5


@pytest.mark.parametrize(
    ("query", "field"),
    [("limit=0", "limit"), ("limit=1001", "limit"), ("limit=x", "limit"), ("offset=-1", "offset"), ("q=nonsense", "q"), ("q=colour:red", "q"),
     ('q=model:"open', "q"), ("q=started_after:yesterday", "q"), ("q=started_after:2026-01-01T00:00:00", "q"), ("after_id=nobody", "after_id"),
     ("q=" + "model:a+" * 51, "q")],
)  # fmt: skip
def test_a_bad_query_names_the_field(client: FlaskClient, query: str, field: str) -> None:
    response = client.get(f"{PREFIX}/interceptions?{query}")
    error = response.get_json()
    assert response.status_code == 400
    assert set(error) == {"message", "detail", "validations"}
    assert error["validations"][0]["field"] == field


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
    steps = (
        event_stream(recorded.answer, size) if recorded.streaming else [http_response(200, recorded.answer)]
    )
    send_request(client, upstream, recorded.route, recorded.request, *steps)
    (record,) = list_records(client)
    (usage,) = record["token_usages"]
    counts = tuple(
        usage[f"{kind}_tokens"] for kind in ("input", "output", "cache_read_input", "cache_write_input")
    )
    tools = [tool_use["tool"] for tool_use in record["tool_usages"]]
    sources = [thought["metadata"]["source"] for thought in record["model_thoughts"]]
    assert (*counts, tools, sources) == FACTS[name]
    assert record["error_type"] == ""
    for tool_use in record["tool_usages"]:
        assert tool_use["tool_call_id"]
        assert tool_use["provider_response_id"] == usage["provider_response_id"]


@needs_recorded
@pytest.mark.parametrize(
    ("name", "type"),
    [("chatcompletions/stream_error/streaming", "server_error"), ("streaming/stream_error/streaming", "unknown"), ("anthropic/non_stream_error/non-streaming", "bad_request"),
     ("streaming/http_error/streaming", "rate_limited"), ("blocking/wrong_response_format/non-streaming", "unknown")],
)  # fmt: skip
def test_errors_of_recorded_answers(client: FlaskClient, upstream: Upstream, name: str, type: str) -> None:
    recorded = RECORDED_BY_NAME[name]
    status, body = recorded.status_and_body()
    steps = event_stream(body) if recorded.streaming and status == 200 else [http_response(status, body)]
    send_request(client, upstream, recorded.route, recorded.request, *steps)
    (record,) = list_records(client)
    assert record["error_type"] == type
    assert record["error_message"]


@pytest.mark.parametrize(
    "query",
    ["q=model:a%00b", "q=%00", 'q=model:"%00"', "q=session_id:%00", "after_id=%00", "after_id=01%00", "limit=1%00", "offset=%00"],
)  # fmt: skip
def test_a_nul_character_is_400(client: FlaskClient, upstream: Upstream, query: str) -> None:
    """PostgreSQL refuses it in every text."""
    send_request(client, upstream, MESSAGES, {"model": "m", "messages": []}, http_response(200, b"{}"))
    response = client.get(f"{PREFIX}/interceptions?{query}")
    assert response.status_code == 400
    assert [error["field"] for error in response.get_json()["validations"]] == [query.partition("=")[0]]
