"""Claude on Amazon Bedrock: the client speaks Anthropic's API, the upstream AWS's."""

from __future__ import annotations

import base64
import gzip
import json
import threading
from collections.abc import Iterator

import anthropic
import pytest
from flask.testing import FlaskClient

from tests.conftest import MakeApp
from tests.support import bedrock
from tests.support.bedrock import (
    ACCESS_KEY,
    ASK,
    MESSAGES,
    MODEL,
    SMALL,
    WHOLE,
    ask,
    event,
    exception,
    frames,
    record,
    refusal,
    signer,
)
from tests.support.server import KEEPALIVE_SECONDS, PREFIX, Server
from tests.support.upstream import (
    CLOSE,
    LAST_CHUNK,
    WAIT_FOR_CLOSE,
    ReceivedRequest,
    Upstream,
    chunk,
    http_response,
)

COUNT = f"{MESSAGES}/count_tokens"
EVENTS = [
    (
        b'{"type":"message_start","message":{"id":"msg_bdrk_1","type":"message","role":"assistant",'
        b'"model":"claude-sonnet-4-5-20250929","content":[],"stop_reason":null,"stop_sequence":null,'
        b'"usage":{"input_tokens":3,"cache_read_input_tokens":5,"output_tokens":1}}}'
    ),
    b'{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}',
    b'{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Hm \\ud800"}}',
    b'{"type":"content_block_stop","index":0}',
    b'{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"toolu_1","name":"look","input":{}}}',
    b'{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\\"at\\":1}"}}',
    b'{"type":"content_block_stop","index":1}',
    b'{"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":7}}',
    b'{"type":"message_stop"}',
]
METRICS = (
    b'{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":3,"outputTokenCount":7}}'
)
BEDROCK_EVENTS = [*EVENTS[:-1], METRICS]


def anthropic_stream(events: list[bytes]) -> bytes:
    """The events as Anthropic's API streams them."""
    names = [json.loads(data)["type"].encode() for data in events]
    pairs = zip(names, events, strict=True)
    return b"".join(b"event: %s\ndata: %s\n\n" % pair for pair in pairs)


@pytest.fixture(scope="module")
def running(shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {
        "providers": [bedrock.settings(shared_upstream.url)],
        "keepalive_interval": KEEPALIVE_SECONDS,
        "drain_delay": 0,
    }
    server = Server(tmp_path_factory.mktemp("bedrock"), settings, is_forked=True)
    yield server.wait_ready()
    server.stop_cleanly()


@pytest.fixture
def server(running: Server, upstream: Upstream) -> Iterator[Server]:
    yield running
    running.disconnect()


@pytest.fixture
def client(make_app: MakeApp, upstream: Upstream) -> FlaskClient:
    return make_app(providers=[bedrock.settings(upstream.url)]).test_client()


def send(client: FlaskClient, upstream: Upstream, body: object, **headers: str) -> ReceivedRequest:
    """Sends a request that the upstream answers; returns what the upstream received."""
    upstream.enqueue(http_response(200, WHOLE))
    response = ask(client, body, **headers)
    assert response.status_code == 200, response.data
    return upstream.requests[-1]


def test_a_blocking_request_is_signed_and_its_answer_is_unchanged(
    client: FlaskClient, upstream: Upstream
) -> None:
    upstream.enqueue(
        http_response(200, WHOLE, "x-amzn-RequestId: aws-1", "X-Amzn-Bedrock-Input-Token-Count: 3")
    )
    response = ask(client, ASK, x_api_key="sk-ant-of-the-user-0123456789", authorization="Bearer users-own")
    assert (response.status_code, response.data) == (200, WHOLE)
    assert response.headers["request-id"] == response.headers["x-amzn-requestid"] == "aws-1"
    received = upstream.requests[0]
    assert signer(received) == ACCESS_KEY
    assert received.target == "/model/eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke"
    assert received.header("x-api-key") is None
    assert received.header("accept") == received.header("content-type") == "application/json"
    unchanged = {name: ASK[name] for name in ("max_tokens", "messages")}
    assert json.loads(received.body) == {**unchanged, "anthropic_version": "bedrock-2023-05-31"}
    recorded = record(client)
    expected = {
        "provider": "bedrock", "provider_name": "bedrock", "model": "claude-sonnet-4-5", "wire_exact": False,
        "credential_kind": "centralized", "credential_hint": "AKID...6789", "status_code": 200, "error_type": "",
        "streaming": False,
    }  # fmt: skip
    assert {name: recorded[name] for name in expected} == expected
    (usage,) = recorded["token_usages"]
    assert (usage["model"], usage["output_tokens"]) == ("claude-sonnet-4-5-20250929", 7)


def test_a_stream_is_converted_to_anthropics(server: Server, upstream: Upstream) -> None:
    go = threading.Event()
    upstream.enqueue(bedrock.stream_head(), go, *bedrock.event_stream(frames(BEDROCK_EVENTS), 11)[1:])
    client = server.connect()
    client.send("POST", f"{MESSAGES}?beta=true", json.dumps({**ASK, "stream": True}).encode())
    status, headers = client.head()
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert (headers["request-id"], headers["x-accel-buffering"]) == ("aws-1", "no")
    ping = client.chunk()
    go.set()
    data, whole = client.chunks()
    assert ping == b'event: ping\ndata: {"type": "ping"}\n\n'
    assert (data.replace(ping, b""), whole) == (anthropic_stream(EVENTS), True)
    received = upstream.requests[0]
    assert signer(received) == ACCESS_KEY
    assert (
        received.target == "/model/eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke-with-response-stream"
    )
    assert received.header("accept") == "application/vnd.amazon.eventstream"
    assert "stream" not in json.loads(received.body)
    recorded = server.record(headers["x-aibridge-interception-id"])
    (usage,) = recorded["token_usages"]
    assert (recorded["error_type"], recorded["wire_exact"], recorded["streaming"]) == ("", False, True)
    assert [usage[f"{name}_tokens"] for name in ("input", "cache_read_input", "output")] == [3, 5, 7]
    assert [(use["tool_call_id"], use["input"]) for use in recorded["tool_usages"]] == [
        ("toolu_1", '{"at":1}')
    ]
    assert recorded["model_thoughts"][0]["metadata"] == {"source": "thinking"}


@pytest.mark.parametrize("size", [0, 1, 64])
def test_frames_may_be_split_anywhere(client: FlaskClient, upstream: Upstream, size: int) -> None:
    other = bedrock.frame(b"{}", message_type="event", event_type="initial-response")
    unknown = b'{"type":"of_tomorrow",\n "x":1e5}'
    upstream.enqueue(*bedrock.event_stream(other + frames([unknown, *BEDROCK_EVENTS]), size))
    expected = b'event: of_tomorrow\ndata: {"type":"of_tomorrow",  "x":1e5}\n\n' + anthropic_stream(EVENTS)
    assert ask(client, {**ASK, "stream": True}).data == expected


VALID = event(EVENTS[4])
DAMAGED = {
    "checksum": VALID[:-1] + bytes([VALID[-1] ^ 1]),
    "prelude": b"\0\0" + VALID[2:5] + b"\7" + VALID[6:],
    "cut": VALID[:-9],
    "empty": bedrock.frame(b"{}", message_type="event", event_type="chunk"),
    "no base64": bedrock.frame(b'{"bytes":"?"}', message_type="event", event_type="chunk"),
}


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("valid_frames", [0, 4])
def test_a_damaged_frame_is_an_answer_that_broke_off(
    server: Server, upstream: Upstream, kind: str, valid_frames: int
) -> None:
    upstream.enqueue(*bedrock.event_stream(frames(EVENTS[:valid_frames]) + DAMAGED[kind]))
    client = server.connect()
    client.send("POST", MESSAGES, json.dumps({**ASK, "stream": True}).encode())
    _, headers = client.head()
    data, whole = client.chunks()
    events, _, error = data.partition(b"event: error\ndata: ")
    assert (events, whole) == (anthropic_stream(EVENTS[:valid_frames]), False)
    assert json.loads(error)["error"] == {
        "type": "api_error",
        "message": "the AI provider's answer broke off",
    }
    recorded = server.record(headers["x-aibridge-interception-id"])
    assert (recorded["error_type"], recorded["status_code"]) == ("server_error", 200)


def test_a_connection_that_breaks_is_an_answer_that_broke_off(server: Server, upstream: Upstream) -> None:
    upstream.enqueue(bedrock.stream_head(), chunk(frames(EVENTS[:2]) + event(EVENTS[2])[:30]), CLOSE)
    client = server.connect()
    client.send("POST", MESSAGES, json.dumps({**ASK, "stream": True}).encode())
    client.head()
    data, whole = client.chunks()
    assert data.startswith(anthropic_stream(EVENTS[:2]) + b"event: error\n")
    assert not whole


def test_a_client_disconnect_closes_the_upstream(server: Server, upstream: Upstream) -> None:
    upstream.enqueue(bedrock.stream_head(), chunk(frames(EVENTS[:1])), WAIT_FOR_CLOSE)
    client = server.connect()
    client.send("POST", MESSAGES, json.dumps({**ASK, "stream": True}).encode())
    _, headers = client.head()
    assert client.chunk() == anthropic_stream(EVENTS[:1])
    client.close()
    assert upstream.peer_closed.wait(5)
    recorded = server.record(headers["x-aibridge-interception-id"])
    assert (recorded["error_type"], recorded["token_usages"][0]["input_tokens"]) == ("client_closed", 3)


@pytest.mark.parametrize(
    ("name", "type", "recorded_type"),
    [
        ("throttlingException", "rate_limit_error", "rate_limited"),
        ("modelStreamErrorException", "api_error", "server_error"),
        ("validationException", "invalid_request_error", "bad_request"),
        ("modelTimeoutException", "timeout_error", "timeout"),
        ("serviceUnavailableException", "overloaded_error", "overloaded"),
        ("internalServerException", "api_error", "server_error"),
        ("ofTomorrow", "api_error", "server_error"),
    ],
)
def test_an_exception_in_a_stream_is_an_error_event(
    client: FlaskClient, upstream: Upstream, name: str, type: str, recorded_type: str
) -> None:
    upstream.enqueue(*bedrock.event_stream(frames(EVENTS[:1]) + exception(name, "too much")))
    events, _, error = ask(client, {**ASK, "stream": True}).data.partition(b"event: error\ndata: ")
    assert events == anthropic_stream(EVENTS[:1])
    inner = {"type": type, "message": "too much"}
    assert json.loads(error) == {"type": "error", "error": inner, "request_id": "aws-1"}
    recorded = record(client)
    assert (recorded["error_type"], recorded["error_message"]) == (recorded_type, "too much")


@pytest.mark.parametrize(
    ("status", "name", "sent_status", "type", "recorded_type"),
    [
        (429, "ThrottlingException", 429, "rate_limit_error", "rate_limited"),
        (403, "AccessDeniedException", 403, "permission_error", "unauthorized"),
        (400, "ValidationException", 400, "invalid_request_error", "bad_request"),
        (408, "ModelTimeoutException", 504, "timeout_error", "timeout"),
        (404, "ResourceNotFoundException", 404, "not_found_error", "bad_request"),
        (424, "ModelErrorException", 500, "api_error", "server_error"),
        (503, "ServiceUnavailableException", 503, "overloaded_error", "overloaded"),
        (429, "ModelNotReadyException", 503, "overloaded_error", "overloaded"),
        (413, "OfTomorrowException", 413, "request_too_large", "bad_request"),
    ],
)
def test_errors_of_aws_are_converted_to_anthropics(
    client: FlaskClient,
    upstream: Upstream,
    status: int,
    name: str,
    sent_status: int,
    type: str,
    recorded_type: str,
) -> None:
    upstream.enqueue(refusal(status, name, "No."))
    response = ask(client, {**ASK, "stream": True})
    assert (response.status_code, response.content_type) == (sent_status, "application/json")
    inner = {"type": type, "message": "No."}
    assert response.get_json() == {"type": "error", "error": inner, "request_id": "aws-1"}
    recorded = record(client)
    assert (recorded["error_type"], recorded["error_message"], recorded["status_code"]) == (
        recorded_type,
        "No.",
        sent_status,
    )


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (403, "InvalidSignatureException"),
        (403, "UnrecognizedClientException"),
        (403, "ExpiredTokenException"),
        (401, "Whatever"),
    ],
)
def test_a_refused_signature_is_an_error_of_the_gateway(
    client: FlaskClient, upstream: Upstream, status: int, name: str
) -> None:
    upstream.enqueue(refusal(status, name, "The Canonical String should have been x-amz-security-token:abc"))
    response = ask(client, ASK)
    message = "all configured keys failed authentication. Contact your administrator"
    assert (response.status_code, response.get_json()["error"]) == (
        502,
        {"type": "api_error", "message": message},
    )
    assert len(upstream.requests) == 1


def test_time_outs_of_the_model_open_the_breaker(make_app: MakeApp, upstream: Upstream) -> None:
    provider = {**bedrock.settings(upstream.url), "circuit_breaker": {"failure_threshold": 2}}
    client = make_app(providers=[provider]).test_client()
    for _ in range(2):
        upstream.enqueue(refusal(408, "ModelTimeoutException", "slow"))
        assert ask(client, ASK).status_code == 504
    response = ask(client, ASK)
    assert (response.status_code, response.get_json()["error"]["message"]) == (503, "circuit breaker is open")
    assert len(upstream.requests) == 2


def test_each_attempt_is_signed_again(make_app: MakeApp, upstream: Upstream) -> None:
    client = make_app(providers=[{**bedrock.settings(upstream.url), "max_retries": 1}]).test_client()
    upstream.enqueue(refusal(500, "InternalServerException", "again"))
    upstream.enqueue(http_response(200, WHOLE))
    assert ask(client, ASK).data == WHOLE
    assert [signer(received) for received in upstream.requests] == [ACCESS_KEY, ACCESS_KEY]
    assert upstream.requests[0].body == upstream.requests[1].body


def test_the_members_that_bedrock_knows_keep_their_bytes(client: FlaskClient, upstream: Upstream) -> None:
    body = (
        b'{ "model":"claude-sonnet-4-5","stream" : false,"temperature":1e0,"top_k":12345678901234567890,'
        b'"metadata":{"user_id":"u"},"service_tier":"auto","container":"c","inference_geo":"us","output_config":{},'
        b'"speed":"fast","mcp_servers":[],"cache_control":{"type":"ephemeral"},"whatever_comes_next":1,'
        b'"context_management":{},"anthropic_version":"2023-06-01","messages":[{"role":"user",  "content":"%s"}]}'
    )
    for text in (b"\\u00e9 \xc3\xa9", b"\\ud800"):
        received = send(client, upstream, body % text)
        expected = (
            b'{"temperature":1e0,"top_k":12345678901234567890,"anthropic_version":"bedrock-2023-05-31",'
            b'"messages":[{"role":"user",  "content":"%s"}]}'
        )
        assert received.body == expected % text
        assert received.header("content-length") == str(len(received.body))
        assert signer(received) == ACCESS_KEY


HAIKU_35, OPUS_48 = "anthropic.claude-3-5-haiku-20241022-v1:0", "us.anthropic.claude-opus-4-8"
CACHED = {"type": "ephemeral", "ttl": "1h", "scope": "global", "next": 1}


@pytest.mark.parametrize(
    ("model", "cache_control"),
    [(HAIKU_35, {"type": "ephemeral"}), (OPUS_48, {"type": "ephemeral", "ttl": "1h"})],
)
def test_cache_control_has_only_what_the_model_knows(
    make_app: MakeApp, upstream: Upstream, model: str, cache_control: object
) -> None:
    def request(control: object) -> dict[str, object]:
        text = {"type": "text", "text": "x", "cache_control": control}
        result = {"type": "tool_result", "tool_use_id": "t", "content": [text], "cache_control": control}
        use = {"type": "tool_use", "id": "t", "name": "n", "input": {"cache_control": CACHED}}
        return {
            "system": [text, {"type": "text", "text": "y"}],
            "messages": [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}],
            "tools": [{"name": "n", "input_schema": {"type": "object"}, "cache_control": control}],
        }

    client = make_app(providers=[bedrock.settings(upstream.url, model=model)]).test_client()
    body = json.loads(send(client, upstream, {**ASK, **request(CACHED)}).body)
    assert {name: body[name] for name in ("system", "messages", "tools")} == request(cache_control)


@pytest.mark.parametrize(
    ("betas", "kept"),
    [
        ("", {"strict"}),
        ("tool-search-tool-2025-10-19", {"strict", "defer_loading"}),
        ("advanced-tool-use-2025-11-20", {"strict", "defer_loading", "input_examples"}),
    ],
)
def test_members_of_tools_depend_on_the_betas(
    make_app: MakeApp, upstream: Upstream, betas: str, kept: set[str]
) -> None:
    plain = {"name": "n", "description": "d", "input_schema": {"type": "object"}}
    bash = {"type": "bash_20250124", "name": "bash"}
    optional = {"strict": True, "defer_loading": True, "input_examples": [{}], "eager_input_streaming": True}
    tools = [{**plain, **optional}, {**plain, "type": "custom"}, {**bash, "eager_input_streaming": True}]
    model = "anthropic.claude-opus-4-5-20251101-v1:0"
    client = make_app(providers=[bedrock.settings(upstream.url, model=model)]).test_client()
    body = json.loads(send(client, upstream, {**ASK, "tools": tools}, anthropic_beta=betas).body)
    expected = {name: value for name, value in optional.items() if name in kept}
    assert body["tools"] == [{**plain, **expected}, {**plain, "type": "custom"}, bash]


def reminder(text: str) -> dict[str, str]:
    return {"type": "text", "text": f"<system-reminder>\n{text}\n</system-reminder>"}


HI, SYSTEM = {"role": "user", "content": "hi"}, {"role": "system", "content": "be brief"}
HELLO = {"role": "assistant", "content": "hello"}
TEXT = {"type": "text", "text": "hi"}


@pytest.mark.parametrize(
    ("messages", "fitted"),
    [
        ([HI, SYSTEM], [{"role": "user", "content": [TEXT, reminder("be brief")]}]),
        (
            [{"role": "user", "content": [TEXT]}, SYSTEM, HELLO, HI],
            [{"role": "user", "content": [TEXT, reminder("be brief")]}, HELLO, HI],
        ),
        ([SYSTEM, HELLO], [{"role": "user", "content": [reminder("be brief")]}, HELLO]),
        (
            [HI, HELLO, {"role": "system", "content": [{**TEXT, "cache_control": {"type": "ephemeral"}}]}],
            [
                HI,
                HELLO,
                {"role": "user", "content": [{**reminder("hi"), "cache_control": {"type": "ephemeral"}}]},
            ],
        ),
        (
            [HI, SYSTEM, SYSTEM],
            [{"role": "user", "content": [TEXT, reminder("be brief"), reminder("be brief")]}],
        ),
        ([{"role": "user", "content": "the system"}], [{"role": "user", "content": "the system"}]),
    ],
)
def test_system_messages_become_the_users_where_the_model_takes_none(
    make_app: MakeApp, upstream: Upstream, messages: list[object], fitted: list[object]
) -> None:
    for model, expected in ((HAIKU_35, fitted), (OPUS_48, messages)):
        client = make_app(providers=[bedrock.settings(upstream.url, model=model)]).test_client()
        upstream.requests.clear()
        body = json.loads(send(client, upstream, {**ASK, "messages": messages}).body)
        assert body["messages"] == expected
        upstream.requests.clear()
        upstream.enqueue(http_response(200, b'{"inputTokens":42}'))
        ask(client, {"model": "claude-sonnet-4-5", "messages": messages}, COUNT)
        inner = json.loads(upstream.requests[0].body)["input"]["invokeModel"]["body"]
        assert json.loads(base64.b64decode(inner))["messages"] == expected


def test_a_compressed_body_is_sent_decoded(client: FlaskClient, upstream: Upstream) -> None:
    received = send(client, upstream, gzip.compress(json.dumps(ASK).encode()), content_encoding="gzip")
    assert json.loads(received.body)["messages"] == ASK["messages"]
    assert received.header("content-encoding") is None


def test_clients_cannot_set_headers_for_aws(client: FlaskClient, upstream: Upstream) -> None:
    received = send(
        client, upstream, ASK,
        anthropic_version="2023-06-01", anthropic_beta="x", anthropic_dangerous_direct_browser_access="true",
        x_amz_security_token="t", x_amz_date="20200101T000000Z", x_amzn_bedrock_guardrailidentifier="none",
        date="never", user_agent="claude-cli/2.1.330 (external, cli)", x_stainless_lang="js",
    )  # fmt: skip
    assert signer(received) == ACCESS_KEY
    assert received.names() == {
        "host", "content-type", "accept", "accept-encoding", "content-length", "user-agent", "x-stainless-lang",
        "x-amz-date", "authorization",
    }  # fmt: skip


CLAUDE_CODE_BETAS = (
    "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,"
    "per-turn-control-2026-07-01, advanced-tool-use-2025-11-20,effort-2025-11-24,interleaved-thinking-2025-05-14"
)
INTERLEAVED, MANAGED = "interleaved-thinking-2025-05-14", "context-management-2025-06-27"
SEARCH, EXAMPLES, EFFORT = "tool-search-tool-2025-10-19", "tool-examples-2025-10-29", "effort-2025-11-24"


@pytest.mark.parametrize(
    ("model", "betas", "fields"),
    [
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", [INTERLEAVED, MANAGED, SEARCH], {"context_management"}),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", [INTERLEAVED, MANAGED], {"context_management"}),
        (
            "anthropic.claude-opus-4-5-20251101-v1:0",
            [INTERLEAVED, SEARCH, EXAMPLES, EFFORT],
            {"output_config"},
        ),
        ("global.anthropic.claude-opus-4-6-v1", [INTERLEAVED, SEARCH], {"output_config"}),
        ("anthropic.claude-opus-4-7", [], {"output_config"}),
        ("anthropic.claude-3-5-haiku-20241022-v1:0", [], set()),
    ],
)
def test_betas_are_limited_to_those_of_the_model(
    make_app: MakeApp, upstream: Upstream, model: str, betas: list[str], fields: set[str]
) -> None:
    client = make_app(providers=[bedrock.settings(upstream.url, model=model)]).test_client()
    optional = {"output_config": {"effort": "high"}, "context_management": {"edits": []}}
    received = send(client, upstream, {**ASK, **optional}, anthropic_beta=CLAUDE_CODE_BETAS)
    body = json.loads(received.body)
    assert body.get("anthropic_beta", []) == betas
    assert optional.keys() & body.keys() == fields


def test_betas_of_the_body_count_too(client: FlaskClient, upstream: Upstream) -> None:
    received = send(
        client, upstream, {**ASK, "anthropic_beta": ["unknown", INTERLEAVED, 3]}, anthropic_beta=MANAGED
    )
    assert json.loads(received.body)["anthropic_beta"] == [MANAGED, INTERLEAVED]


SONNET_45, OPUS_46 = "anthropic.claude-sonnet-4-5-20250929-v1:0", "us.anthropic.claude-opus-4-6-v1"
OPUS_47, PROFILE = (
    "anthropic.claude-opus-4-7",
    "arn:aws:bedrock:eu-central-1:1:application-inference-profile/abc",
)
ADAPTIVE = {"type": "adaptive", "display": "omitted"}


@pytest.mark.parametrize(
    ("model", "thinking", "effort", "max_tokens", "expected"),
    [
        (SONNET_45, ADAPTIVE, "low", 64000, {"type": "enabled", "budget_tokens": 12800}),
        (SONNET_45, ADAPTIVE, "medium", 64000, {"type": "enabled", "budget_tokens": 32000}),
        (SONNET_45, ADAPTIVE, "high", 64000, {"type": "enabled", "budget_tokens": 51200}),
        (SONNET_45, ADAPTIVE, "", 64000, {"type": "enabled", "budget_tokens": 51200}),
        (SONNET_45, ADAPTIVE, "max", 64000, {"type": "enabled", "budget_tokens": 60800}),
        (SONNET_45, ADAPTIVE, "low", 5120, {"type": "enabled", "budget_tokens": 1024}),
        (SONNET_45, ADAPTIVE, "low", 5119, {"type": "disabled"}),
        (
            SONNET_45,
            {"type": "enabled", "budget_tokens": 5},
            "low",
            9,
            {"type": "enabled", "budget_tokens": 5},
        ),
        (OPUS_46, ADAPTIVE, "low", 64000, ADAPTIVE),
        (OPUS_46, {"type": "enabled", "budget_tokens": 5}, "", 9, {"type": "enabled", "budget_tokens": 5}),
        (OPUS_47, ADAPTIVE, "low", 64000, ADAPTIVE),
        (OPUS_47, {"type": "enabled", "budget_tokens": 5}, "", 9, {"type": "adaptive"}),
        (PROFILE, ADAPTIVE, "medium", 64000, {"type": "enabled", "budget_tokens": 32000}),
    ],
)
def test_thinking_is_converted_for_the_model(
    make_app: MakeApp,
    upstream: Upstream,
    model: str,
    thinking: object,
    effort: str,
    max_tokens: int,
    expected: object,
) -> None:
    client = make_app(providers=[bedrock.settings(upstream.url, model=model)]).test_client()
    request = {**ASK, "max_tokens": max_tokens, "thinking": thinking}
    received = send(client, upstream, {**request, "output_config": {"effort": effort}} if effort else request)
    assert json.loads(received.body)["thinking"] == expected


def test_an_output_format_that_the_model_refuses_is_left_out(make_app: MakeApp, upstream: Upstream) -> None:
    client = make_app(providers=[bedrock.settings(upstream.url, model=OPUS_47)]).test_client()
    config = {"effort": "low", "format": {"type": "json_schema", "schema": {}}}
    assert json.loads(send(client, upstream, {**ASK, "output_config": config}).body)["output_config"] == {
        "effort": "low"
    }


@pytest.mark.parametrize(
    ("requested", "model", "small", "target"),
    [
        ("claude-opus-4-5", MODEL, SMALL, "eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0"),
        ("claude-3-5-haiku-latest", MODEL, SMALL, "eu.anthropic.claude-haiku-4-5-20251001-v1%3A0"),
        (SMALL, MODEL, SMALL, "eu.anthropic.claude-haiku-4-5-20251001-v1%3A0"),
        ("quick", MODEL, "quick", "quick"),
        (7, MODEL, SMALL, "eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0"),
        ("m", PROFILE, SMALL, "arn%3Aaws%3Abedrock%3Aeu-central-1%3A1%3Aapplication-inference-profile%2Fabc"),
    ],
)  # fmt: skip
def test_models_are_mapped_to_the_configured_ones(
    make_app: MakeApp, upstream: Upstream, requested: object, model: str, small: str, target: str
) -> None:
    provider = bedrock.settings(f"{upstream.url}/prefix/", model=model, small_fast_model=small)
    client = make_app(providers=[provider]).test_client()
    received = send(client, upstream, {**ASK, "model": requested})
    assert received.target == f"/prefix/model/{target}/invoke"
    assert signer(received) == ACCESS_KEY


def test_the_list_of_models_needs_no_upstream(client: FlaskClient, upstream: Upstream) -> None:
    response = client.get(f"{PREFIX}/bedrock/v1/models?limit=1000")
    assert response.status_code == 200
    assert [(model["type"], model["id"]) for model in response.get_json()["data"]] == [
        ("model", MODEL),
        ("model", SMALL),
    ]
    assert client.head(f"{PREFIX}/bedrock/v1/models").headers["content-length"] == str(len(response.data))
    assert client.post(f"{PREFIX}/bedrock/v1/models").status_code == 404
    assert upstream.requests == []


def test_the_index_page_shows_the_base_url(client: FlaskClient) -> None:
    assert f"ANTHROPIC_BASE_URL=http://localhost{PREFIX}/bedrock\n" in client.get("/").text


def test_tokens_are_counted_by_bedrock(client: FlaskClient, upstream: Upstream) -> None:
    upstream.enqueue(http_response(200, b'{"inputTokens":42}'))
    request = {"model": "claude-sonnet-4-5", "messages": ASK["messages"], "metadata": {"a": "b"}}
    response = ask(client, request, f"{COUNT}?beta=true", accept_encoding="gzip")
    assert (response.status_code, response.get_json()) == (200, {"input_tokens": 42})
    received = upstream.requests[0]
    assert signer(received) == ACCESS_KEY
    assert received.header("accept-encoding") == "identity"
    assert received.target == "/model/anthropic.claude-sonnet-4-5-20250929-v1%3A0/count-tokens"
    inner = json.loads(base64.b64decode(json.loads(received.body)["input"]["invokeModel"]["body"]))
    assert inner == {
        "max_tokens": 1024,
        "messages": ASK["messages"],
        "anthropic_version": "bedrock-2023-05-31",
    }


@pytest.mark.parametrize(
    ("status", "name", "expected", "type"),
    [
        (400, "ValidationException", 404, "not_found_error"),
        (403, "AccessDeniedException", 404, "not_found_error"),
        (429, "ThrottlingException", 429, "rate_limit_error"),
    ],
)
def test_a_model_whose_tokens_cannot_be_counted_is_not_found(
    client: FlaskClient, upstream: Upstream, status: int, name: str, expected: int, type: str
) -> None:
    upstream.enqueue(refusal(status, name, "The provided model doesn't support counting tokens."))
    response = ask(client, ASK, COUNT)
    assert (response.status_code, response.get_json()["error"]["type"]) == (expected, type)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", COUNT, b"", 404),
        ("POST", COUNT, b"[]", 400),
        ("POST", COUNT, b"", 400),
        ("POST", MESSAGES, b'{"a":' + b"[" * 5000, 400),
        ("GET", "/bedrock/v1/models/x", b"", 404),
        ("POST", "/bedrock/model/x/invoke", b"{}", 404),
    ],
)
def test_routes_that_bedrock_does_not_serve_are_refused(
    client: FlaskClient, upstream: Upstream, method: str, path: str, body: bytes, status: int
) -> None:
    response = client.open(PREFIX + path, method=method, data=body)
    assert (response.status_code, response.get_json()["type"]) == (status, "error")
    assert upstream.requests == []


def test_anthropics_package_works_as_with_its_own_api(server: Server, upstream: Upstream) -> None:
    request = {**ASK, "model": "claude-of-tomorrow", "max_tokens": 900}
    options = {"api_key": "aib_none", "max_retries": 0}
    with anthropic.Anthropic(base_url=f"{server.url}/bedrock", **options) as claude:
        upstream.enqueue(http_response(200, WHOLE, "x-amzn-RequestId: aws-7"))
        message = claude.messages.create(**request)
        assert (message.content[0].text, message._request_id) == ("Hi", "aws-7")
        upstream.enqueue(*bedrock.event_stream(frames(BEDROCK_EVENTS), 50))
        with claude.beta.messages.stream(**request, betas=[INTERLEAVED]) as stream:
            final = stream.get_final_message()
        assert [block.type for block in final.content] == ["thinking", "tool_use"]
        assert (final.content[1].input, final.usage.output_tokens) == ({"at": 1}, 7)
        upstream.enqueue(refusal(429, "ThrottlingException", "Too many tokens"))
        with pytest.raises(anthropic.RateLimitError, match="Too many tokens"):
            claude.messages.create(**request)
        upstream.enqueue(*bedrock.event_stream(frames(EVENTS[:2]) + exception("throttlingException", "busy")))
        with (
            pytest.raises(anthropic.APIStatusError, match="busy"),
            claude.messages.stream(**request) as stream,
        ):
            stream.get_final_message()
        upstream.enqueue(bedrock.stream_head(), chunk(frames(EVENTS[:2])), CLOSE)
        with pytest.raises(anthropic.APIError), claude.messages.stream(**request) as stream:
            stream.get_final_message()
        assert [model.id for model in claude.models.list()] == [MODEL, SMALL]
        upstream.enqueue(http_response(200, b'{"inputTokens":42}'))
        assert claude.messages.count_tokens(model="x", messages=ASK["messages"]).input_tokens == 42


def test_claude_codes_request_is_served(server: Server, upstream: Upstream) -> None:
    user = json.dumps({"device_id": "d", "account_uuid": "", "session_id": "s-1"})
    request = {
        "model": "claude-haiku-4-5-20251001", "max_tokens": 32000, "stream": True,
        "system": [{"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.330;"}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "<system-reminder>a</system-reminder>"}, {"type": "text", "text": "hi"}]},
            {"role": "system", "content": "# Environment"},
        ],
        "tools": [{"name": "Read", "input_schema": {"type": "object"}}], "metadata": {"user_id": user},
        "thinking": {"type": "adaptive", "display": "updates"}, "output_config": {"effort": "medium"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    }  # fmt: skip
    upstream.enqueue(*bedrock.event_stream(frames(BEDROCK_EVENTS)))
    client = server.connect()
    client.send(
        "POST", f"{MESSAGES}?beta=true", json.dumps(request).encode(),
        User_Agent="claude-cli/2.1.330 (external, cli)", X_Claude_Code_Session_Id="s-1", X_App="cli",
        Anthropic_Version="2023-06-01", Anthropic_Beta=CLAUDE_CODE_BETAS, Authorization="Bearer aib_local",
        Accept_Encoding="gzip, deflate, br, zstd",
    )  # fmt: skip
    _, headers = client.head()
    assert client.chunks() == (anthropic_stream(EVENTS), True)
    body = json.loads(upstream.requests[0].body)
    assert "haiku" in upstream.requests[0].target
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 16000}
    assert body["anthropic_beta"] == [INTERLEAVED, MANAGED]
    assert {"model", "stream", "metadata", "output_config"} & body.keys() == set()
    assert [body[name] for name in ("system", "tools", "context_management")] == [
        request[name] for name in ("system", "tools", "context_management")
    ]
    (message,) = body["messages"]
    texts = [block["text"] for block in message["content"]]
    environment = "<system-reminder>\n# Environment\n</system-reminder>"
    assert (message["role"], texts) == ("user", ["<system-reminder>a</system-reminder>", "hi", environment])
    recorded = server.record(headers["x-aibridge-interception-id"])
    expected = ("Claude Code", "s-1", "claude-haiku-4-5-20251001")
    assert (recorded["client"], recorded["client_session_id"], recorded["model"]) == expected
    assert [prompt["prompt"] for prompt in recorded["user_prompts"]] == ["hi"]


def test_a_stream_without_its_last_event_passes_and_is_recorded(
    client: FlaskClient, upstream: Upstream
) -> None:
    upstream.enqueue(bedrock.stream_head(), chunk(frames(EVENTS[:3])), LAST_CHUNK)
    assert ask(client, {**ASK, "stream": True}).data == anthropic_stream(EVENTS[:3])
    assert record(client)["error_message"] == "the answer ended without its last event"
