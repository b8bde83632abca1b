"""Claude on Amazon Bedrock: the client speaks Anthropic's API, the upstream hears and speaks AWS's."""

from __future__ import annotations

import base64
import gzip
import json
import threading
from collections.abc import Iterator

import anthropic
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.conftest import MakeApp
from tests.support import bedrock
from tests.support.bedrock import ACCESS_KEY, MODEL, SMALL, event, exception, frames, refusal, signed_by
from tests.support.server import KEEPALIVE, PREFIX, Server
from tests.support.upstream import CLOSE, GONE, LAST_CHUNK, Heard, Upstream, answer, chunk

MESSAGES = "/bedrock/v1/messages"
COUNT = f"{MESSAGES}/count_tokens"
ASK = {"model": "claude-sonnet-4-5", "max_tokens": 64000, "messages": [{"role": "user", "content": "hi"}]}
WHOLE = (
    b'{"id":"msg_bdrk_1","type":"message","role":"assistant","model":"claude-sonnet-4-5-20250929",'
    b'"content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn","stop_sequence":null,'
    b'"usage":{"input_tokens":3,"output_tokens":7}}'
)
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
STREAM = [*EVENTS[:-1], METRICS]


def told(events: list[bytes]) -> bytes:
    """The events as Anthropic's own API streams them."""
    names = [json.loads(data)["type"].encode() for data in events]
    pairs = zip(names, events, strict=True)
    return b"".join(b"event: %s\ndata: %s\n\n" % pair for pair in pairs)


@pytest.fixture(scope="module")
def running(shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {
        "providers": [bedrock.settings(shared_upstream.url)],
        "keepalive_interval": KEEPALIVE,
        "drain_delay": 0,
    }
    server = Server(tmp_path_factory.mktemp("bedrock"), settings)
    yield server.wait_ready()
    assert "Traceback" not in server.stop()


@pytest.fixture
def server(running: Server, upstream: Upstream) -> Iterator[Server]:
    yield running
    running.disconnect()


@pytest.fixture
def client(make_app: MakeApp, upstream: Upstream) -> FlaskClient:
    return make_app(providers=[bedrock.settings(upstream.url)]).test_client()


def ask(client: FlaskClient, body: object, path: str = MESSAGES, **headers: str) -> TestResponse:
    data = body if isinstance(body, bytes) else json.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = client.post(PREFIX + path, data=data, headers=named)
    response.get_data()
    return response


def sent(client: FlaskClient, upstream: Upstream, body: object, **headers: str) -> Heard:
    """What the upstream hears of a request that it answers."""
    upstream.say(answer(200, WHOLE))
    response = ask(client, body, **headers)
    assert response.status_code == 200, response.data
    return upstream.heard[-1]


def record(client: FlaskClient) -> dict[str, object]:
    found: dict[str, object] = client.get(f"{PREFIX}/interceptions").get_json()["results"][0]
    return found


def test_a_blocking_request_is_signed_and_its_answer_comes_as_it_is(
    client: FlaskClient, upstream: Upstream
) -> None:
    upstream.say(answer(200, WHOLE, "x-amzn-RequestId: aws-1", "X-Amzn-Bedrock-Input-Token-Count: 3"))
    response = ask(client, ASK, x_api_key="sk-ant-of-the-user-0123456789", authorization="Bearer users-own")
    assert (response.status_code, response.data) == (200, WHOLE)
    assert response.headers["request-id"] == response.headers["x-amzn-requestid"] == "aws-1"
    heard = upstream.heard[0]
    assert signed_by(heard) == ACCESS_KEY
    assert heard.target == "/model/eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke"
    assert heard.header("x-api-key") is None
    assert heard.header("accept") == heard.header("content-type") == "application/json"
    kept = {name: ASK[name] for name in ("max_tokens", "messages")}
    assert json.loads(heard.body) == {**kept, "anthropic_version": "bedrock-2023-05-31"}
    found = record(client)
    expected = {
        "provider": "bedrock", "provider_name": "bedrock", "model": "claude-sonnet-4-5", "wire_exact": False,
        "credential_kind": "centralized", "credential_hint": "AKID...6789", "status_code": 200, "error_type": "",
        "streaming": False,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    (usage,) = found["token_usages"]
    assert (usage["model"], usage["output_tokens"]) == ("claude-sonnet-4-5-20250929", 7)


def test_a_stream_becomes_anthropics(server: Server, upstream: Upstream) -> None:
    go = threading.Event()
    upstream.say(bedrock.stream_head(), go, *bedrock.streamed(frames(STREAM), 11)[1:])
    client = server.connect()
    client.send("POST", f"{MESSAGES}?beta=true", json.dumps({**ASK, "stream": True}).encode())
    status, headers = client.head()
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert (headers["request-id"], headers["x-accel-buffering"]) == ("aws-1", "no")
    ping = client.chunk()
    go.set()
    received, whole = client.chunks()
    assert ping == b'event: ping\ndata: {"type": "ping"}\n\n'
    assert (received.replace(ping, b""), whole) == (told(EVENTS), True)
    heard = upstream.heard[0]
    assert signed_by(heard) == ACCESS_KEY
    assert heard.target == "/model/eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke-with-response-stream"
    assert heard.header("accept") == "application/vnd.amazon.eventstream"
    assert "stream" not in json.loads(heard.body)
    found = server.record(headers["x-aibridge-interception-id"])
    (usage,) = found["token_usages"]
    assert (found["error_type"], found["wire_exact"], found["streaming"]) == ("", False, True)
    assert [usage[f"{name}_tokens"] for name in ("input", "cache_read_input", "output")] == [3, 5, 7]
    assert [(use["tool_call_id"], use["input"]) for use in found["tool_usages"]] == [("toolu_1", '{"at":1}')]
    assert found["model_thoughts"][0]["metadata"] == {"source": "thinking"}


@pytest.mark.parametrize("size", [0, 1, 64])
def test_frames_are_read_however_they_are_cut(client: FlaskClient, upstream: Upstream, size: int) -> None:
    other = bedrock.frame(b"{}", message_type="event", event_type="initial-response")
    unknown = b'{"type":"of_tomorrow",\n "x":1e5}'
    upstream.say(*bedrock.streamed(other + frames([unknown, *STREAM]), size))
    expected = b'event: of_tomorrow\ndata: {"type":"of_tomorrow",  "x":1e5}\n\n' + told(EVENTS)
    assert ask(client, {**ASK, "stream": True}).data == expected


GOOD = event(EVENTS[4])
DAMAGED = {
    "checksum": GOOD[:-1] + bytes([GOOD[-1] ^ 1]),
    "prelude": b"\0\0" + GOOD[2:5] + b"\7" + GOOD[6:],
    "cut": GOOD[:-9],
    "empty": bedrock.frame(b"{}", message_type="event", event_type="chunk"),
    "no base64": bedrock.frame(b'{"bytes":"?"}', message_type="event", event_type="chunk"),
}


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("behind", [0, 4])
def test_a_damaged_frame_is_an_answer_that_broke_off(
    server: Server, upstream: Upstream, kind: str, behind: int
) -> None:
    upstream.say(*bedrock.streamed(frames(EVENTS[:behind]) + DAMAGED[kind]))
    client = server.connect()
    client.send("POST", MESSAGES, json.dumps({**ASK, "stream": True}).encode())
    _, headers = client.head()
    received, whole = client.chunks()
    events, _, error = received.partition(b"event: error\ndata: ")
    assert (events, whole) == (told(EVENTS[:behind]), False)
    assert json.loads(error)["error"] == {
        "type": "api_error",
        "message": "the AI provider's answer broke off",
    }
    found = server.record(headers["x-aibridge-interception-id"])
    assert (found["error_type"], found["status_code"]) == ("server_error", 200)


def test_a_connection_that_breaks_is_an_answer_that_broke_off(server: Server, upstream: Upstream) -> None:
    upstream.say(bedrock.stream_head(), chunk(frames(EVENTS[:2]) + event(EVENTS[2])[:30]), CLOSE)
    client = server.connect()
    client.send("POST", MESSAGES, json.dumps({**ASK, "stream": True}).encode())
    client.head()
    received, whole = client.chunks()
    assert received.startswith(told(EVENTS[:2]) + b"event: error\n")
    assert not whole


def test_a_client_that_leaves_ends_the_upstream(server: Server, upstream: Upstream) -> None:
    upstream.say(bedrock.stream_head(), chunk(frames(EVENTS[:1])), GONE)
    client = server.connect()
    client.send("POST", MESSAGES, json.dumps({**ASK, "stream": True}).encode())
    _, headers = client.head()
    assert client.chunk() == told(EVENTS[:1])
    client.close()
    assert upstream.gone.wait(5)
    found = server.record(headers["x-aibridge-interception-id"])
    assert (found["error_type"], found["token_usages"][0]["input_tokens"]) == ("client_closed", 3)


@pytest.mark.parametrize(
    ("name", "type", "recorded"),
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
    client: FlaskClient, upstream: Upstream, name: str, type: str, recorded: str
) -> None:
    upstream.say(*bedrock.streamed(frames(EVENTS[:1]) + exception(name, "too much")))
    events, _, error = ask(client, {**ASK, "stream": True}).data.partition(b"event: error\ndata: ")
    assert events == told(EVENTS[:1])
    inner = {"type": type, "message": "too much"}
    assert json.loads(error) == {"type": "error", "error": inner, "request_id": "aws-1"}
    found = record(client)
    assert (found["error_type"], found["error_message"]) == (recorded, "too much")


@pytest.mark.parametrize(
    ("status", "name", "told_status", "type", "recorded"),
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
def test_errors_of_aws_are_told_as_anthropics(
    client: FlaskClient,
    upstream: Upstream,
    status: int,
    name: str,
    told_status: int,
    type: str,
    recorded: str,
) -> None:
    upstream.say(refusal(status, name, "No."))
    response = ask(client, {**ASK, "stream": True})
    assert (response.status_code, response.content_type) == (told_status, "application/json")
    inner = {"type": type, "message": "No."}
    assert response.get_json() == {"type": "error", "error": inner, "request_id": "aws-1"}
    found = record(client)
    assert (found["error_type"], found["error_message"], found["status_code"]) == (
        recorded,
        "No.",
        told_status,
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
def test_a_signature_that_aws_refuses_is_the_bridges_own_fault(
    client: FlaskClient, upstream: Upstream, status: int, name: str
) -> None:
    upstream.say(refusal(status, name, "The Canonical String should have been x-amz-security-token:abc"))
    response = ask(client, ASK)
    message = "all configured keys failed authentication. Contact your administrator"
    assert (response.status_code, response.get_json()["error"]) == (
        502,
        {"type": "api_error", "message": message},
    )
    assert len(upstream.heard) == 1


def test_time_outs_of_the_model_open_the_breaker(make_app: MakeApp, upstream: Upstream) -> None:
    provider = {**bedrock.settings(upstream.url), "circuit_breaker": {"failure_threshold": 2}}
    client = make_app(providers=[provider]).test_client()
    for _ in range(2):
        upstream.say(refusal(408, "ModelTimeoutException", "slow"))
        assert ask(client, ASK).status_code == 504
    response = ask(client, ASK)
    assert (response.status_code, response.get_json()["error"]["message"]) == (503, "circuit breaker is open")
    assert len(upstream.heard) == 2


def test_each_attempt_is_signed_anew(make_app: MakeApp, upstream: Upstream) -> None:
    client = make_app(providers=[{**bedrock.settings(upstream.url), "max_retries": 1}]).test_client()
    upstream.say(refusal(500, "InternalServerException", "again"))
    upstream.say(answer(200, WHOLE))
    assert ask(client, ASK).data == WHOLE
    assert [signed_by(heard) for heard in upstream.heard] == [ACCESS_KEY, ACCESS_KEY]
    assert upstream.heard[0].body == upstream.heard[1].body


def test_only_what_bedrock_refuses_leaves_the_body(client: FlaskClient, upstream: Upstream) -> None:
    body = (
        b'{ "model":"claude-sonnet-4-5","stream" : false,"temperature":1e0,"big":12345678901234567890,'
        b'"metadata":{"user_id":"u"},"service_tier":"auto","container":"c","inference_geo":"us","output_config":{},'
        b'"context_management":{},"anthropic_version":"2023-06-01","messages":[{"role":"user",  "content":"%s"}]}'
    )
    for text in (b"\\u00e9 \xc3\xa9", b"\\ud800"):
        heard = sent(client, upstream, body % text)
        expected = (
            b'{"temperature":1e0,"big":12345678901234567890,"anthropic_version":"bedrock-2023-05-31",'
            b'"messages":[{"role":"user",  "content":"%s"}]}'
        )
        assert heard.body == expected % text
        assert heard.header("content-length") == str(len(heard.body))
        assert signed_by(heard) == ACCESS_KEY


def test_a_compressed_body_is_sent_on_decoded(client: FlaskClient, upstream: Upstream) -> None:
    heard = sent(client, upstream, gzip.compress(json.dumps(ASK).encode()), content_encoding="gzip")
    assert json.loads(heard.body)["messages"] == ASK["messages"]
    assert heard.header("content-encoding") is None


def test_no_header_of_a_client_steers_aws(client: FlaskClient, upstream: Upstream) -> None:
    heard = sent(
        client, upstream, ASK,
        anthropic_version="2023-06-01", anthropic_beta="x", anthropic_dangerous_direct_browser_access="true",
        x_amz_security_token="t", x_amz_date="20200101T000000Z", x_amzn_bedrock_guardrailidentifier="none",
        date="never", user_agent="claude-cli/2.1.330 (external, cli)", x_stainless_lang="js",
    )  # fmt: skip
    assert signed_by(heard) == ACCESS_KEY
    assert heard.names() == {
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
def test_betas_are_those_that_the_model_takes(
    make_app: MakeApp, upstream: Upstream, model: str, betas: list[str], fields: set[str]
) -> None:
    client = make_app(providers=[bedrock.settings(upstream.url, model=model)]).test_client()
    gated = {"output_config": {"effort": "high"}, "context_management": {"edits": []}}
    heard = sent(client, upstream, {**ASK, **gated}, anthropic_beta=CLAUDE_CODE_BETAS)
    body = json.loads(heard.body)
    assert body.get("anthropic_beta", []) == betas
    assert gated.keys() & body.keys() == fields


def test_betas_of_the_body_count_too(client: FlaskClient, upstream: Upstream) -> None:
    heard = sent(
        client, upstream, {**ASK, "anthropic_beta": ["unknown", INTERLEAVED, 3]}, anthropic_beta=MANAGED
    )
    assert json.loads(heard.body)["anthropic_beta"] == [MANAGED, INTERLEAVED]


SONNET_45, OPUS_46 = "anthropic.claude-sonnet-4-5-20250929-v1:0", "us.anthropic.claude-opus-4-6-v1"
OPUS_47, PROFILE = (
    "anthropic.claude-opus-4-7",
    "arn:aws:bedrock:eu-central-1:1:application-inference-profile/abc",
)
ADAPTIVE = {"type": "adaptive", "display": "omitted"}


@pytest.mark.parametrize(
    ("model", "thinking", "effort", "most", "expected"),
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
def test_thinking_is_as_the_model_knows_it(
    make_app: MakeApp,
    upstream: Upstream,
    model: str,
    thinking: object,
    effort: str,
    most: int,
    expected: object,
) -> None:
    client = make_app(providers=[bedrock.settings(upstream.url, model=model)]).test_client()
    asked = {**ASK, "max_tokens": most, "thinking": thinking}
    heard = sent(client, upstream, {**asked, "output_config": {"effort": effort}} if effort else asked)
    assert json.loads(heard.body)["thinking"] == expected


def test_an_output_format_that_the_model_refuses_is_left_out(make_app: MakeApp, upstream: Upstream) -> None:
    client = make_app(providers=[bedrock.settings(upstream.url, model=OPUS_47)]).test_client()
    config = {"effort": "low", "format": {"type": "json_schema", "schema": {}}}
    assert json.loads(sent(client, upstream, {**ASK, "output_config": config}).body)["output_config"] == {
        "effort": "low"
    }


@pytest.mark.parametrize(
    ("asked", "model", "small", "target"),
    [
        ("claude-opus-4-5", MODEL, SMALL, "eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0"),
        ("claude-3-5-haiku-latest", MODEL, SMALL, "eu.anthropic.claude-haiku-4-5-20251001-v1%3A0"),
        (SMALL, MODEL, SMALL, "eu.anthropic.claude-haiku-4-5-20251001-v1%3A0"),
        ("quick", MODEL, "quick", "quick"),
        (7, MODEL, SMALL, "eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0"),
        ("m", PROFILE, SMALL, "arn%3Aaws%3Abedrock%3Aeu-central-1%3A1%3Aapplication-inference-profile%2Fabc"),
    ],
)  # fmt: skip
def test_models_are_the_configured_ones(
    make_app: MakeApp, upstream: Upstream, asked: object, model: str, small: str, target: str
) -> None:
    provider = bedrock.settings(f"{upstream.url}/behind/", model=model, small_fast_model=small)
    client = make_app(providers=[provider]).test_client()
    heard = sent(client, upstream, {**ASK, "model": asked})
    assert heard.target == f"/behind/model/{target}/invoke"
    assert signed_by(heard) == ACCESS_KEY


def test_the_list_of_models_needs_no_upstream(client: FlaskClient, upstream: Upstream) -> None:
    response = client.get(f"{PREFIX}/bedrock/v1/models?limit=1000")
    assert response.status_code == 200
    assert [(one["type"], one["id"]) for one in response.get_json()["data"]] == [
        ("model", MODEL),
        ("model", SMALL),
    ]
    assert client.head(f"{PREFIX}/bedrock/v1/models").headers["content-length"] == str(len(response.data))
    assert client.post(f"{PREFIX}/bedrock/v1/models").status_code == 404
    assert upstream.heard == []


def test_the_first_page_tells_how_to_reach_it(client: FlaskClient) -> None:
    assert f"ANTHROPIC_BASE_URL=http://localhost{PREFIX}/bedrock\n" in client.get("/").text


def test_tokens_are_counted_by_bedrock(client: FlaskClient, upstream: Upstream) -> None:
    upstream.say(answer(200, b'{"inputTokens":42}'))
    asked = {"model": "claude-sonnet-4-5", "messages": ASK["messages"], "metadata": {"a": "b"}}
    response = ask(client, asked, f"{COUNT}?beta=true", accept_encoding="gzip")
    assert (response.status_code, response.get_json()) == (200, {"input_tokens": 42})
    heard = upstream.heard[0]
    assert signed_by(heard) == ACCESS_KEY
    assert heard.header("accept-encoding") == "identity"
    assert heard.target == "/model/anthropic.claude-sonnet-4-5-20250929-v1%3A0/count-tokens"
    inner = json.loads(base64.b64decode(json.loads(heard.body)["input"]["invokeModel"]["body"]))
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
def test_where_tokens_are_not_counted_is_nothing(
    client: FlaskClient, upstream: Upstream, status: int, name: str, expected: int, type: str
) -> None:
    upstream.say(refusal(status, name, "The provided model doesn't support counting tokens."))
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
def test_what_bedrock_does_not_serve_is_refused(
    client: FlaskClient, upstream: Upstream, method: str, path: str, body: bytes, status: int
) -> None:
    response = client.open(PREFIX + path, method=method, data=body)
    assert (response.status_code, response.get_json()["type"]) == (status, "error")
    assert upstream.heard == []


def test_anthropics_own_package_sees_no_difference(server: Server, upstream: Upstream) -> None:
    asked = {**ASK, "model": "claude-of-tomorrow", "max_tokens": 900}
    options = {"api_key": "aib_none", "max_retries": 0}
    with anthropic.Anthropic(base_url=f"{server.url}/bedrock", **options) as claude:
        upstream.say(answer(200, WHOLE, "x-amzn-RequestId: aws-7"))
        message = claude.messages.create(**asked)
        assert (message.content[0].text, message._request_id) == ("Hi", "aws-7")
        upstream.say(*bedrock.streamed(frames(STREAM), 50))
        with claude.beta.messages.stream(**asked, betas=[INTERLEAVED]) as stream:
            final = stream.get_final_message()
        assert [block.type for block in final.content] == ["thinking", "tool_use"]
        assert (final.content[1].input, final.usage.output_tokens) == ({"at": 1}, 7)
        upstream.say(refusal(429, "ThrottlingException", "Too many tokens"))
        with pytest.raises(anthropic.RateLimitError, match="Too many tokens"):
            claude.messages.create(**asked)
        upstream.say(*bedrock.streamed(frames(EVENTS[:2]) + exception("throttlingException", "busy")))
        with pytest.raises(anthropic.APIStatusError, match="busy"), claude.messages.stream(**asked) as stream:
            stream.get_final_message()
        upstream.say(bedrock.stream_head(), chunk(frames(EVENTS[:2])), CLOSE)
        with pytest.raises(anthropic.APIError), claude.messages.stream(**asked) as stream:
            stream.get_final_message()
        assert [model.id for model in claude.models.list()] == [MODEL, SMALL]
        upstream.say(answer(200, b'{"inputTokens":42}'))
        assert claude.messages.count_tokens(model="x", messages=ASK["messages"]).input_tokens == 42


def test_claude_codes_request_is_served(server: Server, upstream: Upstream) -> None:
    user = json.dumps({"device_id": "d", "account_uuid": "", "session_id": "s-1"})
    asked = {
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
    upstream.say(*bedrock.streamed(frames(STREAM)))
    client = server.connect()
    client.send(
        "POST", f"{MESSAGES}?beta=true", json.dumps(asked).encode(),
        User_Agent="claude-cli/2.1.330 (external, cli)", X_Claude_Code_Session_Id="s-1", X_App="cli",
        Anthropic_Version="2023-06-01", Anthropic_Beta=CLAUDE_CODE_BETAS, Authorization="Bearer aib_local",
        Accept_Encoding="gzip, deflate, br, zstd",
    )  # fmt: skip
    _, headers = client.head()
    assert client.chunks() == (told(EVENTS), True)
    body = json.loads(upstream.heard[0].body)
    assert "haiku" in upstream.heard[0].target
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 16000}
    assert body["anthropic_beta"] == [INTERLEAVED, MANAGED]
    assert {"model", "stream", "metadata", "output_config"} & body.keys() == set()
    assert [body[name] for name in ("system", "messages", "tools", "context_management")] == [
        asked[name] for name in ("system", "messages", "tools", "context_management")
    ]
    found = server.record(headers["x-aibridge-interception-id"])
    expected = ("Claude Code", "s-1", "claude-haiku-4-5-20251001")
    assert (found["client"], found["client_session_id"], found["model"]) == expected
    assert [prompt["prompt"] for prompt in found["user_prompts"]] == ["hi"]


def test_an_end_without_the_last_event_passes_and_is_recorded(
    client: FlaskClient, upstream: Upstream
) -> None:
    upstream.say(bedrock.stream_head(), chunk(frames(EVENTS[:3])), LAST_CHUNK)
    assert ask(client, {**ASK, "stream": True}).data == told(EVENTS[:3])
    assert record(client)["error_message"] == "the answer ended without its last event"
