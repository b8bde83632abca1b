"""The providers' own Python packages see no difference between the bridge and the provider."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator

import anthropic
import openai
import pytest

from tests.support.exchanges import OWN, Exchange, load
from tests.support.server import Server
from tests.support.upstream import (
    CLOSE,
    RESET,
    WAIT_FOR_CLOSE,
    Upstream,
    chunk,
    event_stream,
    http_response,
    stream_head,
)

EXCHANGES = {exchange.name: exchange for exchange in load(OWN)}
MESSAGE, MESSAGES = "anthropic/parallel_tools/non-streaming", "anthropic/parallel_tools/streaming"
COMPLETION, COMPLETIONS = (
    "chatcompletions/parallel_tools/non-streaming",
    "chatcompletions/parallel_tools/streaming",
)
RESPONSE, RESPONSES = "responses/every_item/non-streaming", "responses/every_item/streaming"

NO_KEY = "aib_0123456789"  # a gateway token's form: it never leaves the bridge
CENTRAL_ANTHROPIC, CENTRAL_OPENAI = "sk-ant-central-0123456789", "Bearer sk-oai-central-0123456789"
OWN_KEY = "sk-of-the-user-0123456789"
SAID = [{"role": "user", "content": "hi"}]
ASK = {"model": "claude-test-1", "max_tokens": 100, "messages": SAID}
ASK_CHAT = {"model": "gpt-test-1", "messages": SAID}
ASK_RESPONSES = {"model": "gpt-test-2", "input": "hi"}


def make_claude(server: Server, **options: object) -> anthropic.Anthropic:
    chosen = {"api_key": NO_KEY, "max_retries": 0, **options}
    return anthropic.Anthropic(base_url=f"{server.url}/anthropic", **chosen)


def make_gpt(server: Server, provider: str = "openai/v1", **options: object) -> openai.OpenAI:
    chosen = {"api_key": NO_KEY, "max_retries": 0, **options}
    return openai.OpenAI(base_url=f"{server.url}/{provider}", **chosen)


def make_async_claude(server: Server) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=f"{server.url}/anthropic", api_key=NO_KEY, max_retries=0)


def make_async_gpt(server: Server) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{server.url}/openai/v1", api_key=NO_KEY, max_retries=0)


@pytest.fixture
def claude(server: Server) -> Iterator[anthropic.Anthropic]:
    with make_claude(server) as client:
        yield client


@pytest.fixture
def gpt(server: Server) -> Iterator[openai.OpenAI]:
    with make_gpt(server) as client:
        yield client


def say(upstream: Upstream, name: str, *headers: str) -> Exchange:
    """The next answer is this exchange's; a stream comes in torn pieces."""
    exchange = EXCHANGES[name]
    if exchange.streaming:
        upstream.enqueue(*event_stream(exchange.answer, 11, *headers))
    else:
        upstream.enqueue(http_response(200, exchange.answer, *headers))
    return exchange


def whole(name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(EXCHANGES[name].answer)
    return found


def sent_types(name: str) -> list[str]:
    """The types of a stream's events, less the pings, which the packages keep to themselves."""
    lines = EXCHANGES[name].answer.decode().splitlines()
    found = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    return [one for one in found if one != "ping"]


def calls_of(completion: object) -> list[tuple[str, str, str]]:
    message = completion.choices[0].message
    return [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls]


def ask_chat(client: openai.OpenAI) -> object:
    return client.chat.completions.create(**ASK_CHAT)


def ask_responses(client: openai.OpenAI) -> object:
    return client.responses.create(**ASK_RESPONSES)


Ask = Callable[[openai.OpenAI], object]
PARCELS = [("call_Q1", "track", '{"parcel":"Q1"}'), ("call_Z9", "track", '{"parcel":"Z9"}')]


# What comes back


def test_a_blocking_message_is_the_providers_own(claude: anthropic.Anthropic, upstream: Upstream) -> None:
    say(upstream, MESSAGE, "request-id: req_7")
    message = claude.messages.create(**ASK)
    assert message.to_dict() == whole(MESSAGE)
    assert message._request_id == "req_7"
    (heard,) = upstream.requests
    assert json.loads(heard.body) == ASK
    assert heard.header("user-agent").startswith("Anthropic/Python ")
    assert heard.header("x-stainless-lang") == "python"


def test_a_streamed_message_adds_up_to_the_blocking_one(
    claude: anthropic.Anthropic, upstream: Upstream
) -> None:
    say(upstream, MESSAGES)
    with claude.messages.stream(**ASK) as stream:
        message = stream.get_final_message()
    say(upstream, MESSAGE)
    blocking = claude.messages.create(**ASK)
    assert message.to_dict(exclude_none=True) == blocking.to_dict(exclude_none=True)
    tools = [(block.id, block.input) for block in message.content if block.type == "tool_use"]
    assert tools == [("toolu_01Armor", {"ship": 'Armor "II"', "lines": 20}), ("toolu_01Pen", {})]


def test_every_event_of_a_message_reaches_the_package(
    claude: anthropic.Anthropic, upstream: Upstream
) -> None:
    say(upstream, MESSAGES)
    with claude.messages.create(**ASK, stream=True) as stream:
        assert [event.type for event in stream] == sent_types(MESSAGES)


def test_text_comes_piece_by_piece(claude: anthropic.Anthropic, upstream: Upstream) -> None:
    say(upstream, MESSAGES)
    with claude.messages.stream(**ASK) as stream:
        assert list(stream.text_stream) == ["High tide is at 18:40. ", "Now the logs, both of them ⛴."]


def test_messages_work_without_blocking(server: Server, upstream: Upstream) -> None:
    async def dialogue() -> tuple[object, object]:
        async with make_async_claude(server) as client:
            say(upstream, MESSAGE)
            blocking = await client.messages.create(**ASK)
            say(upstream, MESSAGES)
            async with client.messages.stream(**ASK) as stream:
                return blocking, await stream.get_final_message()

    blocking, message = asyncio.run(dialogue())
    assert blocking.to_dict() == whole(MESSAGE)
    assert message.to_dict(exclude_none=True) == blocking.to_dict(exclude_none=True)
    assert upstream.requests[0].header("user-agent").startswith("AsyncAnthropic/Python ")


def test_many_async_streams_stay_apart(server: Server, upstream: Upstream) -> None:
    """Each answer repeats the model that its own request named."""

    async def one(client: anthropic.AsyncAnthropic, number: int) -> str:
        async with client.messages.stream(**{**ASK, "model": f"model-{number}"}) as stream:
            return (await stream.get_final_message()).id

    async def dialogue() -> list[str]:
        async with make_async_claude(server) as client:
            return await asyncio.gather(*(one(client, number) for number in range(12)))

    before, events = upstream.handler, EXCHANGES[MESSAGES].answer
    upstream.handler = lambda heard: event_stream(
        events.replace(b"msg_01Ferries", json.loads(heard.body)["model"].encode()), 64
    )
    try:
        assert asyncio.run(dialogue()) == [f"model-{number}" for number in range(12)]
    finally:
        upstream.handler = before


def test_a_blocking_completion_is_the_providers_own(gpt: openai.OpenAI, upstream: Upstream) -> None:
    say(upstream, COMPLETION, "x-request-id: req_8")
    completion = gpt.chat.completions.create(**ASK_CHAT)
    assert completion.to_dict() == whole(COMPLETION)
    assert completion._request_id == "req_8"
    assert upstream.requests[0].header("user-agent").startswith("OpenAI/Python ")


def test_tool_calls_that_come_by_turns_add_up(gpt: openai.OpenAI, upstream: Upstream) -> None:
    say(upstream, COMPLETIONS)
    with gpt.chat.completions.stream(**ASK_CHAT, stream_options={"include_usage": True}) as stream:
        completion = stream.get_final_completion()
    assert calls_of(completion) == PARCELS
    assert completion.choices[0].finish_reason == "tool_calls"
    assert completion.usage.to_dict() == whole(COMPLETION)["usage"]


def test_usage_that_was_asked_for_comes_last(gpt: openai.OpenAI, upstream: Upstream) -> None:
    say(upstream, COMPLETIONS)
    options = {"include_usage": True}
    with gpt.chat.completions.create(**ASK_CHAT, stream=True, stream_options=options) as stream:
        *chunks, last = stream
    assert [one.usage for one in chunks] == [None] * len(chunks)
    assert last.choices == []
    assert last.usage.prompt_tokens_details.cached_tokens == 1024


def test_usage_that_was_not_asked_for_never_comes(
    gpt: openai.OpenAI, upstream: Upstream, server: Server
) -> None:
    """A program may take `choices[0]` of every chunk; the record has the usage all the same."""
    say(upstream, "chatcompletions/usage_not_asked/streaming")
    with gpt.chat.completions.create(**ASK_CHAT, stream=True) as stream:
        text = "".join(one.choices[0].delta.content or "" for one in stream)
        record = server.record(stream.response.headers["x-aibridge-interception-id"])
    assert text == '"usage" rhymes less than ridge 🌉.'
    assert json.loads(upstream.requests[0].body)["stream_options"] == {"include_usage": True}
    (usage,) = record["token_usages"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (12, 75)
    assert usage["metadata"] == {"completion_reasoning": 64}


def test_a_blocking_response_is_the_providers_own(gpt: openai.OpenAI, upstream: Upstream) -> None:
    say(upstream, RESPONSE)
    response = gpt.responses.create(**ASK_RESPONSES)
    assert response.to_dict() == whole(RESPONSE)


def test_a_streamed_response_adds_up(gpt: openai.OpenAI, upstream: Upstream) -> None:
    say(upstream, RESPONSES)
    with gpt.responses.stream(**ASK_RESPONSES) as stream:
        response = stream.get_final_response()
    _, search, said, weigh, patch = response.output
    assert (search.id, search.action.query) == ("ws_0tin", "price of tin")
    assert said.content[0].text == "The price is known; I weigh the ingot next."
    assert (weigh.call_id, weigh.arguments) == ("call_weigh", '{"item":"ingot \\u2116 4"}')
    assert patch.input.splitlines()[2] == "+33 €/kg"
    assert response.usage.to_dict() == whole(RESPONSE)["usage"]


def test_every_event_of_a_response_reaches_the_package(gpt: openai.OpenAI, upstream: Upstream) -> None:
    say(upstream, RESPONSES)
    with gpt.responses.create(**ASK_RESPONSES, stream=True) as stream:
        events = list(stream)
    assert [event.type for event in events] == sent_types(RESPONSES)
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_openai_works_without_blocking(server: Server, upstream: Upstream) -> None:
    async def dialogue() -> tuple[object, object, object, object]:
        async with make_async_gpt(server) as client:
            say(upstream, COMPLETION)
            completion = await client.chat.completions.create(**ASK_CHAT)
            say(upstream, COMPLETIONS)
            async with client.chat.completions.stream(**ASK_CHAT) as stream:
                added = await stream.get_final_completion()
            say(upstream, RESPONSE)
            response = await client.responses.create(**ASK_RESPONSES)
            say(upstream, RESPONSES)
            async with client.responses.stream(**ASK_RESPONSES) as stream:
                return completion, added, response, await stream.get_final_response()

    completion, added, response, final = asyncio.run(dialogue())
    assert completion.to_dict() == whole(COMPLETION)
    assert calls_of(added) == PARCELS
    assert response.to_dict() == whole(RESPONSE)
    assert [item.id for item in final.output] == [item.id for item in response.output]


def test_a_tool_dialogue_is_one_thread(
    claude: anthropic.Anthropic, upstream: Upstream, server: Server
) -> None:
    """Thoughts go back with their signatures; the second turn's record names the first."""
    say(upstream, MESSAGES)
    with claude.messages.stream(**ASK) as stream:
        first = stream.get_final_message()
        first_id = stream.response.headers["x-aibridge-interception-id"]
    result = {"type": "tool_result", "tool_use_id": "toolu_01Pen", "content": "on time"}
    turns = [
        *SAID,
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    say(upstream, MESSAGE)
    raw = claude.messages.with_raw_response.create(**{**ASK, "messages": turns})
    _, returned, _ = json.loads(upstream.requests[1].body)["messages"]
    assert returned["content"][:2] == whole(MESSAGE)["content"][:2]
    record = server.record(raw.headers["x-aibridge-interception-id"])
    assert record["correlating_tool_call_id"] == "toolu_01Pen"
    assert record["thread_parent_id"] == record["thread_root_id"] == first_id
    assert record["user_prompts"] == []


# What passes by


COUNTED = b'{"input_tokens": 14}'
CLAUDES = b'{"data": [{"type": "model", "id": "claude-test-1", "display_name": "Opus", "created_at": "2025-11-01T00:00:00Z"}], "has_more": false, "first_id": "claude-test-1", "last_id": "claude-test-1"}'
GPTS = b'{"object": "list", "data": [{"id": "gpt-test-1", "object": "model", "created": 1, "owned_by": "system"}]}'


def test_tokens_are_counted_and_models_listed(claude: anthropic.Anthropic, upstream: Upstream) -> None:
    upstream.enqueue(http_response(200, COUNTED))
    upstream.enqueue(http_response(200, CLAUDES))
    counted = claude.messages.count_tokens(model="claude-test-1", messages=SAID)
    models = claude.models.list(limit=5)
    assert counted.input_tokens == 14
    assert [model.id for model in models] == ["claude-test-1"]
    heard = [(one.method, one.target, one.header("x-api-key")) for one in upstream.requests]
    assert heard == [
        ("POST", "/v1/messages/count_tokens", CENTRAL_ANTHROPIC),
        ("GET", "/v1/models?limit=5", CENTRAL_ANTHROPIC),
    ]


def test_gpt_models_are_listed(gpt: openai.OpenAI, upstream: Upstream) -> None:
    upstream.enqueue(http_response(200, GPTS))
    assert [model.id for model in gpt.models.list()] == ["gpt-test-1"]
    (heard,) = upstream.requests
    assert (heard.target, heard.header("authorization")) == ("/v1/models", CENTRAL_OPENAI)


def test_a_stored_response_is_fetched(gpt: openai.OpenAI, upstream: Upstream) -> None:
    say(upstream, RESPONSE)
    assert gpt.responses.retrieve("resp_0tin").to_dict() == whole(RESPONSE)
    assert upstream.requests[0].target == "/v1/responses/resp_0tin"


def test_passing_by_works_without_blocking(server: Server, upstream: Upstream) -> None:
    async def dialogue() -> tuple[int, list[str], list[str]]:
        async with make_async_claude(server) as claude, make_async_gpt(server) as gpt:
            upstream.enqueue(http_response(200, COUNTED))
            counted = await claude.messages.count_tokens(model="m", messages=SAID)
            upstream.enqueue(http_response(200, CLAUDES))
            claudes = [model.id async for model in claude.models.list()]
            upstream.enqueue(http_response(200, GPTS))
            return counted.input_tokens, claudes, [model.id async for model in gpt.models.list()]

    assert asyncio.run(dialogue()) == (14, ["claude-test-1"], ["gpt-test-1"])


# Which key the provider sees


def test_a_gateway_token_is_replaced_by_the_central_key(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, upstream: Upstream, server: Server
) -> None:
    say(upstream, MESSAGE)
    raw = claude.messages.with_raw_response.create(**ASK)
    say(upstream, COMPLETION)
    gpt.chat.completions.create(**ASK_CHAT)
    first, second = upstream.requests
    assert (first.header("x-api-key"), first.header("authorization")) == (CENTRAL_ANTHROPIC, None)
    assert (second.header("x-api-key"), second.header("authorization")) == (None, CENTRAL_OPENAI)
    record = server.record(raw.headers["x-aibridge-interception-id"])
    assert (record["credential_kind"], record["credential_hint"]) == ("centralized", "sk-a...6789")


@pytest.mark.parametrize("given", [{"api_key": OWN_KEY}, {"api_key": None, "auth_token": OWN_KEY}])
def test_the_users_own_key_is_the_only_one(
    server: Server, upstream: Upstream, given: dict[str, object]
) -> None:
    """It goes on in the header in which it came; which one that is differs by the package's age."""
    say(upstream, MESSAGE)
    with make_claude(server, **given) as claude:
        raw = claude.messages.with_raw_response.create(**ASK)
    (heard,) = upstream.requests
    came = raw.http_request.headers
    given_in = [name for name in ("x-api-key", "authorization") if name in came]
    assert [came[name].removeprefix("Bearer ") for name in given_in] == [OWN_KEY]
    for name in ("x-api-key", "authorization", "anthropic-version"):
        assert heard.header(name) == came.get(name)
    record = server.record(raw.headers["x-aibridge-interception-id"])
    assert (record["credential_kind"], record["credential_hint"]) == ("byok", "sk-o...6789")


def test_a_gateway_token_and_an_own_key_may_come_together(server: Server, upstream: Upstream) -> None:
    """Only the token is dropped."""
    say(upstream, MESSAGE)
    headers = {"X-Api-Key": OWN_KEY}
    with make_claude(server, api_key=None, auth_token=NO_KEY, default_headers=headers) as claude:
        claude.messages.create(**ASK)
    (heard,) = upstream.requests
    assert (heard.header("x-api-key"), heard.header("authorization")) == (OWN_KEY, None)


@pytest.mark.parametrize("provider", ["openai/v1", "copilot"])
def test_the_users_own_bearer_goes_on(server: Server, upstream: Upstream, provider: str) -> None:
    say(upstream, COMPLETION)
    with make_gpt(server, provider, api_key=OWN_KEY) as client:
        client.chat.completions.create(**ASK_CHAT)
    assert upstream.requests[0].header("authorization") == f"Bearer {OWN_KEY}"


# Errors


ANTHROPIC_ERRORS = [
    (400, anthropic.BadRequestError, "invalid_request_error"),
    (401, anthropic.AuthenticationError, "authentication_error"),
    (404, anthropic.NotFoundError, "not_found_error"),
    (413, anthropic.RequestTooLargeError, "request_too_large"),
    (429, anthropic.RateLimitError, "rate_limit_error"),
    (500, anthropic.InternalServerError, "api_error"),
    (529, anthropic.OverloadedError, "overloaded_error"),
]


@pytest.mark.parametrize(("status", "kind", "type"), ANTHROPIC_ERRORS)
@pytest.mark.parametrize("streaming", [False, True])
def test_an_anthropic_error_keeps_its_class(
    server: Server, upstream: Upstream, status: int, kind: type, type: str, streaming: bool
) -> None:
    told = {"type": "error", "error": {"type": type, "message": "Ça ne va pas 🙅."}, "request_id": "req_E"}
    headers = "request-id: req_E", "retry-after: 17", "anthropic-ratelimit-requests-remaining: 0"
    upstream.enqueue(http_response(status, json.dumps(told).encode(), *headers))
    with make_claude(server, api_key=OWN_KEY) as claude, pytest.raises(kind) as caught:
        claude.messages.create(**ASK, stream=streaming)
    error = caught.value
    assert (error.status_code, error.request_id, error.body) == (status, "req_E", told)
    assert error.response.headers["retry-after"] == "17"
    assert error.response.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert len(upstream.requests) == 1


OPENAI_ERRORS = [
    (400, openai.BadRequestError, "invalid_request_error", "context_length_exceeded"),
    (401, openai.AuthenticationError, "invalid_request_error", "invalid_api_key"),
    (404, openai.NotFoundError, "invalid_request_error", "model_not_found"),
    (413, openai.APIStatusError, "invalid_request_error", None),
    (429, openai.RateLimitError, "insufficient_quota", "insufficient_quota"),
    (500, openai.InternalServerError, "server_error", None),
    (529, openai.InternalServerError, "server_error", "overloaded"),
]


@pytest.mark.parametrize(("status", "kind", "type", "code"), OPENAI_ERRORS)
@pytest.mark.parametrize("ask", [ask_chat, ask_responses])
def test_an_openai_error_keeps_its_class(
    server: Server, upstream: Upstream, status: int, kind: type, type: str, code: str | None, ask: Ask
) -> None:
    told = {"message": "Ça ne va pas 🙅.", "type": type, "param": "model", "code": code}
    headers = "x-request-id: req_E", "retry-after: 17", "x-ratelimit-remaining-requests: 0"
    upstream.enqueue(http_response(status, json.dumps({"error": told}).encode(), *headers))
    with make_gpt(server, api_key=OWN_KEY) as gpt, pytest.raises(kind) as caught:
        ask(gpt)
    error = caught.value
    assert (error.status_code, error.request_id, error.body) == (status, "req_E", told)
    assert (error.type, error.code, error.param) == (type, code, "model")
    assert error.response.headers["retry-after"] == "17"
    assert error.response.headers["x-ratelimit-remaining-requests"] == "0"


def test_an_async_error_keeps_its_class(server: Server, upstream: Upstream) -> None:
    async def dialogue() -> None:
        async with make_async_claude(server) as claude:
            await claude.messages.create(**ASK)

    upstream.enqueue(
        http_response(529, b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}')
    )
    with pytest.raises(anthropic.OverloadedError) as caught:
        asyncio.run(dialogue())
    assert caught.value.type == "overloaded_error"


def test_an_error_that_is_no_json_passes_too(claude: anthropic.Anthropic, upstream: Upstream) -> None:
    upstream.enqueue(http_response(502, b"<h1>Bad gateway</h1>", kind="text/html"))
    with pytest.raises(anthropic.InternalServerError) as caught:
        claude.messages.create(**ASK)
    assert caught.value.response.text == "<h1>Bad gateway</h1>"


@pytest.mark.parametrize("streaming", [False, True])
def test_a_retry_follows_the_providers_pace(server: Server, upstream: Upstream, streaming: bool) -> None:
    """The package alone asks again; both of its requests reach the provider."""
    refusal = b'{"type":"error","error":{"type":"rate_limit_error","message":"slowly"}}'
    upstream.enqueue(http_response(429, refusal, "retry-after: 0", "retry-after-ms: 1"))
    say(upstream, MESSAGES if streaming else MESSAGE)
    with make_claude(server, max_retries=1) as claude:
        if streaming:
            with claude.messages.stream(**ASK) as stream:
                message = stream.get_final_message()
        else:
            message = claude.messages.create(**ASK)
    assert message.id == "msg_01Ferries"
    assert [heard.header("x-stainless-retry-count") for heard in upstream.requests] == ["0", "1"]


def test_a_gpt_retry_follows_the_providers_pace(server: Server, upstream: Upstream) -> None:
    refusal = b'{"error":{"message":"slowly","type":"requests","param":null,"code":"rate_limit_exceeded"}}'
    upstream.enqueue(http_response(429, refusal, "retry-after: 0", "retry-after-ms: 1"))
    say(upstream, COMPLETION)
    with make_gpt(server, max_retries=1) as gpt:
        completion = gpt.chat.completions.create(**ASK_CHAT)
    assert calls_of(completion) == PARCELS
    assert [heard.header("x-stainless-retry-count") for heard in upstream.requests] == ["0", "1"]


def test_should_retry_is_the_providers_word(server: Server, upstream: Upstream) -> None:
    upstream.enqueue(http_response(500, b'{"type":"error","error":{}}', "x-should-retry: false"))
    with make_claude(server, max_retries=2) as claude, pytest.raises(anthropic.InternalServerError):
        claude.messages.create(**ASK)
    assert len(upstream.requests) == 1


# Streams that break


def cut(upstream: Upstream, name: str, after: bytes, inside: bool, how: object) -> None:
    """The next answer's stream ends behind its first event that holds `after`, or 9 bytes on."""
    events = EXCHANGES[name].answer
    end = events.index(b"\n\n", events.index(after)) + 2
    upstream.enqueue(stream_head("request-id: req_C"), chunk(events[: end + (9 if inside else 0)]), how)


@pytest.mark.parametrize("how", [CLOSE, RESET])
@pytest.mark.parametrize("helper", [False, True])
def test_a_message_cut_between_events_raises(
    claude: anthropic.Anthropic, upstream: Upstream, how: object, helper: bool
) -> None:
    cut(upstream, MESSAGES, b"text_delta", False, how)
    make = claude.messages.stream if helper else claude.messages.create
    options = ASK if helper else {**ASK, "stream": True}
    with pytest.raises(anthropic.APIStatusError) as caught, make(**options) as stream:
        list(stream)
    error = caught.value
    assert error.type == "api_error"
    assert error.request_id == "req_C"
    assert error.body["request_id"] == error.response.headers["x-aibridge-interception-id"]


@pytest.mark.parametrize("how", [CLOSE, RESET])
def test_a_message_cut_inside_an_event_raises(
    claude: anthropic.Anthropic, upstream: Upstream, how: object
) -> None:
    """The package leaves what its HTTP library says as it is."""
    cut(upstream, MESSAGES, b"text_delta", True, how)
    with (
        pytest.raises(Exception, match="incomplete chunked read"),
        claude.messages.stream(**ASK) as stream,
    ):
        stream.get_final_message()


@pytest.mark.parametrize("how", [CLOSE, RESET])
def test_a_completion_cut_between_events_raises(gpt: openai.OpenAI, upstream: Upstream, how: object) -> None:
    cut(upstream, COMPLETIONS, b"call_Z9", False, how)
    with (
        pytest.raises(openai.APIError, match="broke off") as caught,
        gpt.chat.completions.create(**ASK_CHAT, stream=True) as stream,
    ):
        list(stream)
    assert (caught.value.type, caught.value.code) == ("api_error", "upstream_cut")


@pytest.mark.parametrize("how", [CLOSE, RESET])
def test_a_completion_cut_inside_an_event_raises(gpt: openai.OpenAI, upstream: Upstream, how: object) -> None:
    cut(upstream, COMPLETIONS, b"call_Z9", True, how)
    options = {"include_usage": True}
    with (
        pytest.raises(openai.APIConnectionError),
        gpt.chat.completions.create(**ASK_CHAT, stream=True, stream_options=options) as stream,
    ):
        list(stream)


@pytest.mark.parametrize("how", [CLOSE, RESET])
def test_a_response_cut_between_events_raises(gpt: openai.OpenAI, upstream: Upstream, how: object) -> None:
    """An error event of this API is an event like others, so that the cut itself must raise."""
    cut(upstream, RESPONSES, b"reasoning_summary_part.done", False, how)
    events = []
    with (
        pytest.raises(openai.APIConnectionError),
        gpt.responses.create(**ASK_RESPONSES, stream=True) as stream,
    ):
        events.extend(stream)
    assert (events[-1].type, events[-1].code) == ("error", "upstream_cut")
    assert events[-2].type == "response.reasoning_summary_part.done"


@pytest.mark.parametrize("how", [CLOSE, RESET])
def test_a_response_cut_inside_an_event_raises(gpt: openai.OpenAI, upstream: Upstream, how: object) -> None:
    cut(upstream, RESPONSES, b"reasoning_summary_part.done", True, how)
    with pytest.raises(openai.APIConnectionError), gpt.responses.stream(**ASK_RESPONSES) as stream:
        stream.get_final_response()


def test_an_async_stream_that_is_cut_raises(server: Server, upstream: Upstream) -> None:
    async def dialogue() -> None:
        async with make_async_claude(server) as claude, claude.messages.stream(**ASK) as stream:
            await stream.get_final_message()

    cut(upstream, MESSAGES, b"text_delta", False, CLOSE)
    with pytest.raises(anthropic.APIStatusError):
        asyncio.run(dialogue())
    cut(upstream, MESSAGES, b"text_delta", True, CLOSE)
    with pytest.raises(Exception, match="incomplete chunked read"):
        asyncio.run(dialogue())


def test_a_stream_that_is_left_ends_upstream(
    claude: anthropic.Anthropic, upstream: Upstream, server: Server
) -> None:
    events = EXCHANGES[MESSAGES].answer
    upstream.enqueue(stream_head(), chunk(events[: events.index(b"event: ping")]), WAIT_FOR_CLOSE)
    with claude.messages.create(**ASK, stream=True) as stream:
        assert next(stream).type == "message_start"
    assert upstream.peer_closed.wait(10)
    record = server.record(stream.response.headers["x-aibridge-interception-id"])
    assert record["error_type"] == "client_closed"
    assert record["token_usages"][0]["cache_write_input_tokens"] == 900


def test_an_error_event_in_a_message_raises(
    claude: anthropic.Anthropic, upstream: Upstream, server: Server
) -> None:
    say(upstream, "anthropic/error_in_stream/streaming", "request-id: req_011Lake")
    with pytest.raises(anthropic.APIStatusError) as caught, claude.messages.stream(**ASK) as stream:
        stream.get_final_message()
    error = caught.value
    assert (error.type, error.api_message, error.request_id) == (
        "overloaded_error",
        "Overloaded",
        "req_011Lake",
    )
    record = server.record(error.response.headers["x-aibridge-interception-id"])
    assert (record["error_type"], record["error_message"]) == ("overloaded", "Overloaded")


def test_an_error_in_a_completion_raises(gpt: openai.OpenAI, upstream: Upstream) -> None:
    say(upstream, "chatcompletions/error_in_stream/streaming")
    with (
        pytest.raises(openai.APIError, match="The model is overloaded") as caught,
        gpt.chat.completions.create(**ASK_CHAT, stream=True) as stream,
    ):
        list(stream)
    assert caught.value.code == "server_error"


def test_a_response_that_fails_says_so(gpt: openai.OpenAI, upstream: Upstream, server: Server) -> None:
    say(upstream, "responses/failed_in_stream/streaming")
    with gpt.responses.create(**ASK_RESPONSES, stream=True) as stream:
        *_, last = stream
        record = server.record(stream.response.headers["x-aibridge-interception-id"])
    assert last.type == "response.failed"
    assert last.response.error.code == "server_error"
    assert (record["error_type"], record["error_message"]) == ("server_error", last.response.error.message)


# The bridge's own errors


def test_an_unknown_route_is_not_found(
    claude: anthropic.Anthropic, gpt: openai.OpenAI, upstream: Upstream
) -> None:
    with pytest.raises(anthropic.NotFoundError, match="route not supported: GET /v1/files") as caught:
        claude.beta.files.list()
    assert caught.value.type == "not_found_error"
    with pytest.raises(openai.NotFoundError, match="route not supported: POST /v1/embeddings") as told:
        gpt.embeddings.create(model="m", input="hi")
    assert told.value.code == "route_not_supported"
    assert upstream.requests == []


@pytest.mark.parametrize("ask", [ask_chat, ask_responses])
def test_copilot_without_a_credential_is_an_authentication_error(
    server: Server, upstream: Upstream, ask: Ask
) -> None:
    """There are no central keys, and a gateway token is none of the user's own."""
    with make_gpt(server, "copilot") as client, pytest.raises(openai.AuthenticationError) as caught:
        ask(client)
    assert caught.value.code == "missing_credential"
    assert '"copilot"' in caught.value.message
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert upstream.requests == []


def test_a_disabled_provider_is_a_server_error(server: Server, upstream: Upstream) -> None:
    with (
        make_gpt(server, "off/v1", max_retries=2) as client,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        client.models.list()
    assert (caught.value.status_code, caught.value.code) == (503, "provider_disabled")
    assert upstream.requests == []


def test_an_upstream_that_says_nothing_is_a_bad_gateway(
    claude: anthropic.Anthropic, upstream: Upstream
) -> None:
    upstream.enqueue(CLOSE)
    with pytest.raises(anthropic.InternalServerError) as caught:
        claude.messages.create(**ASK)
    error = caught.value
    assert (error.status_code, error.type) == (502, "api_error")
    assert error.body["request_id"] == error.response.headers["x-aibridge-interception-id"]
    assert len(upstream.requests) == 1


def test_a_body_that_is_too_large_is_an_error_of_its_own(
    claude: anthropic.Anthropic, upstream: Upstream
) -> None:
    said = [{"role": "user", "content": "x" * (32 << 20)}]
    with pytest.raises(anthropic.RequestTooLargeError, match="32MiB") as caught:
        claude.messages.create(**{**ASK, "messages": said})
    assert caught.value.type == "request_too_large"
    assert upstream.requests == []
