"""Whose stored responses and conversations: others with the same central key do not get them."""

from __future__ import annotations

import gzip
import json
import os
import select
import signal
import time
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import brotli
import openai
import pytest
import zstandard
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from aibridge_flask.records import database as databases
from tests.conftest import BOTH_DATABASES, MakeApp, Start
from tests.support.mcp import ScriptedMcp
from tests.support.postgres import Postgres
from tests.support.records import rows, tables
from tests.support.responses import call, dumps, response, stream, text
from tests.support.server import PREFIX, TIMEOUT_SECONDS, Server, wait_until
from tests.support.tool_dialects import ADD
from tests.support.upstream import Upstream, chunk, event_stream, head, http_response, stream_head

OPENAI = f"{PREFIX}/openai/v1"
RESPONSES, CONVERSATIONS = f"{OPENAI}/responses", f"{OPENAI}/conversations"
ASK = {"model": "gpt-5.2", "input": "hi"}
CONVERSATION = b'{"id":"conv_1", "object":"conversation","created_at":1768644072,"metadata":{}}\n'
AUTH = {"mode": "header", "admin_actors": ["root"]}
AWAY = "postgresql+psycopg://me:pw@127.0.0.1:1/x"
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}


def provider(upstream: Upstream, ownership: str = "known", name: str = "openai") -> dict[str, object]:
    base, keys = f"{upstream.url}/v1", [{"value": "sk-oai-central-0123456789"}]
    kind = {"type": "openai", "name": name, "passthrough_ownership": ownership}
    return {**kind, "base_url": base, "keys": keys}


@pytest.fixture
def clients(make_app: MakeApp, upstream: Upstream) -> Callable[..., FlaskClient]:
    """Makes bridges on one database and log folder; what is not scripted gets an empty object."""
    upstream.handler = lambda request: [http_response(200, b"{}")]

    def make(ownership: str = "known", **settings: object) -> FlaskClient:
        tree = {"providers": [provider(upstream, ownership)], "auth": AUTH, **settings}
        return make_app(**tree).test_client()

    return make


@pytest.fixture
def client(clients: Callable[..., FlaskClient]) -> FlaskClient:
    return clients()


def send(
    client: FlaskClient, actor: str, method: str, path: str, body: object = None, **headers: str
) -> TestResponse:
    data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named["X-Remote-User"] = actor
    return client.open(path, method=method, data=data, headers=named, buffered=True)


def make_response(
    client: FlaskClient,
    upstream: Upstream,
    actor: str,
    id: str = "resp_1",
    path: str = RESPONSES,
    **ask: object,
) -> None:
    """`actor` has a model answer; the answer is streamed if `ask` says so."""
    answer = response(id, text("msg_1", "Hi"), **ask.pop("changes", {}))  # type: ignore[arg-type]
    if ask.get("stream"):
        upstream.enqueue(*event_stream(stream(answer), 50))
    else:
        upstream.enqueue(http_response(200, dumps(answer)))
    assert send(client, actor, "POST", path, {**ASK, **ask}).status_code == 200
    upstream.requests.clear()


def make_conversation(client: FlaskClient, upstream: Upstream, actor: str) -> None:
    upstream.enqueue(http_response(200, CONVERSATION))
    assert send(client, actor, "POST", CONVERSATIONS, {}).data == CONVERSATION
    upstream.requests.clear()


def is_refused(answer: TestResponse, message: str) -> bool:
    """Whether an answer is the bridge's 404, as OpenAI's API would write it."""
    error = {"message": message, "type": "not_found_error", "param": None, "code": "not_found"}
    is_final = answer.headers.get("x-should-retry") == "false"
    return answer.status_code == 404 and answer.get_json() == {"error": error} and is_final


REQUESTS = [
    ("GET", ""),
    ("GET", "/"),
    ("HEAD", ""),
    ("GET", "?stream=true&starting_after=3"),
    ("GET", "/input_items?limit=1"),
    ("POST", "/cancel"),
    ("DELETE", ""),
    ("DELETE", "/items/msg_1"),
]


@pytest.mark.parametrize(("method", "rest"), REQUESTS)
@pytest.mark.parametrize("kind", ["response", "conversation"])
def test_others_get_404_and_reach_no_upstream(
    client: FlaskClient, upstream: Upstream, kind: str, method: str, rest: str
) -> None:
    if kind == "response":
        make_response(client, upstream, "alice")
        path, message = f"{RESPONSES}/resp_1{rest}", "Response with id 'resp_1' not found."
    else:
        make_conversation(client, upstream, "alice")
        path, message = f"{CONVERSATIONS}/conv_1{rest}", "Conversation with id 'conv_1' not found."
    refused = send(client, "bob", method, path)
    assert (refused.status_code == 404) if method == "HEAD" else is_refused(refused, message)
    assert upstream.requests == []
    for actor in ("alice", "root"):
        assert send(client, actor, method, path).status_code == 200
    assert [request.target for request in upstream.requests] == [path.removeprefix(f"{PREFIX}/openai")] * 2


@pytest.mark.parametrize(
    "path",
    [
        "resp%5F1",
        "%72%65%73%70_1",
        "resp_1%2Finput_items",
        "resp_1%2f",
        "%EF%BD%92esp_1",  # a full-width r
        "resp_1%EF%BC%8Finput_items",  # a full-width slash
    ],
)
def test_an_id_is_read_as_any_decoder_may(client: FlaskClient, upstream: Upstream, path: str) -> None:
    make_response(client, upstream, "alice")
    assert is_refused(
        send(client, "bob", "GET", f"{RESPONSES}/{path}"), "Response with id 'resp_1' not found."
    )
    assert upstream.requests == []


DENSE = b"".join(b"%d," % (number * number) for number in range(1_000_001))  # no codings shrink it to nothing
BODIES = [
    b'{"model":"m","input":"hi","previous_response_id":"resp_1"}',
    b'{"model":"m","input":"hi","stream":true,"previous_response_id":"resp_1"}',
    b'{"model":"m","input":"hi","previous\\u005fresponse_id":"resp\\u005f1"}',
    b'{"model":"m","input":"\\ud800","previous_response_id":"resp_1"}',
    b'{"previous_response_id":"resp_1","model":"m","input":"hi","previous_response_id":null}',
    b'{"previous_response_id":"resp_1","model":"m","input":"hi","previous_response_id":"resp_bobs"}',
    b'{"model":"m","input":"hi","previous_response_id":"resp_1","metadata":{"a":[' + DENSE + b"0]}}",
]
CONVERSATION_BODIES = [
    b'{"model":"m","input":"hi","conversation":"conv_1"}',
    b'{"model":"m","input":"hi","conversation": {"id" : "conv_1"}}',
    b'{"conversation":"conv_1","model":"m","input":"hi","conversation":{}}',
    b'{"model":"m","input":"hi","conversation":{"id":"conv_1","id":"conv_bobs"}}',
    b'{"model":"m","input":"\\ud800","conversation":{"id":"conv_1","id":7}}',
    b'{"model":"m","input":"hi","conversation":{"id":"conv_1"},"metadata":{"a":[' + DENSE + b"0]}}",
]


@cache
def quickly_compressed(body: bytes) -> bytes:
    """What is dense takes seconds at the default level."""
    return gzip.compress(body, 1)


@pytest.mark.parametrize("path", ["responses", "responses/compact", "responses/input_tokens"])
@pytest.mark.parametrize("coding", ["", "gzip"])
@pytest.mark.parametrize("body", [*BODIES, *CONVERSATION_BODIES], ids=lambda body: body[:80])
def test_what_a_body_continues_is_checked_like_a_path(
    client: FlaskClient, upstream: Upstream, path: str, body: bytes, coding: str
) -> None:
    make_response(client, upstream, "alice")
    make_conversation(client, upstream, "alice")
    headers = {"Content_Encoding": coding} if coding else {}
    sent = quickly_compressed(body) if coding else body
    refused = send(client, "bob", "POST", f"{OPENAI}/{path}", sent, **headers)
    message = "Previous response with id 'resp_1'" if b"previous" in body else "Conversation with id 'conv_1'"
    assert is_refused(refused, f"{message} not found.")
    assert ("x-aibridge-interception-id" in refused.headers) == (path != "responses/input_tokens")
    assert upstream.requests == []
    for actor in ("alice", "root"):
        assert send(client, actor, "POST", f"{OPENAI}/{path}", sent, **headers).status_code == 200
    assert [request.body for request in upstream.requests] == [sent, sent]


@pytest.mark.parametrize(
    "body", [{}, {"previous_response_id": None, "conversation": None}, {"conversation": 7}, {"store": False}]
)
def test_a_body_that_continues_nothing_passes(
    clients: Callable[..., FlaskClient], upstream: Upstream, body: dict[str, object]
) -> None:
    client = clients("strict")
    for path in ("responses", "responses/input_tokens"):
        assert send(client, "bob", "POST", f"{OPENAI}/{path}", {**ASK, **body}).status_code == 200


def test_a_body_that_names_many_objects_is_refused(client: FlaskClient, upstream: Upstream) -> None:
    ids = ",".join(f'"id":"conv_{number}"' for number in range(9))
    body = b'{"model":"m","input":"hi","conversation":{%s}}' % ids.encode()
    assert is_refused(
        send(client, "bob", "POST", RESPONSES, body), "Conversation with id 'conv_8' not found."
    )
    assert upstream.requests == []


def test_an_id_is_shown_shortened(clients: Callable[..., FlaskClient]) -> None:
    id = "resp_" + "1" * 5000
    refused = send(clients("strict"), "bob", "POST", RESPONSES, {**ASK, "previous_response_id": id})
    assert is_refused(refused, f"Previous response with id '{id[:100]}' not found.")


UNKNOWN: list[tuple[str, str, object]] = [
    ("GET", f"{RESPONSES}/resp_9", None),
    ("GET", f"{RESPONSES}/lists", None),
    ("GET", f"{CONVERSATIONS}/conv_9/items", None),
    ("GET", f"{RESPONSES}/resp_{'9' * 2000}", None),
    ("POST", RESPONSES, {**ASK, "previous_response_id": "resp_9"}),
    ("POST", RESPONSES, {**ASK, "conversation": {"id": "conv_\n9"}}),
]


@pytest.mark.parametrize(("ownership", "status"), [("known", 200), ("strict", 404), ("off", 200)])
@pytest.mark.parametrize("url", ["", AWAY])
@pytest.mark.parametrize(("method", "path", "body"), UNKNOWN)
def test_ids_that_nobody_is_known_to_have_made(
    clients: Callable[..., FlaskClient],
    ownership: str,
    status: int,
    url: str,
    method: str,
    path: str,
    body: object,
) -> None:
    client = clients(ownership, **({"database_url": url} if url else {}))
    assert send(client, "bob", method, path, body).status_code == status
    assert send(client, "root", method, path, body).status_code == 200


def test_without_ownership_nothing_is_noted_or_checked(
    clients: Callable[..., FlaskClient], upstream: Upstream
) -> None:
    make_response(clients("off"), upstream, "alice")
    make_conversation(clients("off"), upstream, "alice")
    for ownership in ("off", "known"):
        client = clients(ownership)
        for path in (f"{RESPONSES}/resp_1", f"{CONVERSATIONS}/conv_1"):
            assert send(client, "bob", "GET", path).status_code == 200
    assert send(clients("off"), "bob", "GET", CONVERSATIONS).status_code == 200


@pytest.mark.parametrize("word", ["compact", "input_tokens", "input%5Ftokens", "input_tokens/"])
def test_the_names_of_operations_are_no_ids(clients: Callable[..., FlaskClient], word: str) -> None:
    assert send(clients("strict"), "bob", "POST", f"{RESPONSES}/{word}", ASK).status_code == 200
    assert send(clients("strict"), "bob", "GET", f"{RESPONSES}/{word}").status_code == 200


@pytest.mark.parametrize("ownership", ["known", "strict"])
def test_a_list_of_all_conversations_is_for_admins(
    clients: Callable[..., FlaskClient], upstream: Upstream, ownership: str
) -> None:
    client = clients(ownership)
    refused = send(client, "bob", "GET", CONVERSATIONS)
    assert (refused.status_code, refused.get_json()["error"]["code"]) == (404, "route_not_supported")
    assert upstream.requests == []
    assert send(client, "root", "GET", CONVERSATIONS).status_code == 200


def test_a_users_own_key_is_not_checked(client: FlaskClient, upstream: Upstream) -> None:
    own = {"Authorization": "Bearer sk-own-0123456789abcdef"}
    make_response(client, upstream, "alice")
    make_conversation(client, upstream, "alice")
    bodies = {**ASK, "previous_response_id": "resp_1"}, {**ASK, "conversation": "conv_1"}
    for path in (f"{RESPONSES}/resp_1", f"{CONVERSATIONS}/conv_1", CONVERSATIONS):
        assert send(client, "bob", "GET", path, **own).status_code == 200
    for body in bodies:
        assert send(client, "bob", "POST", RESPONSES, body, **own).status_code == 200


def test_what_a_users_own_key_has_made_is_not_noted(client: FlaskClient, upstream: Upstream) -> None:
    own = {"Authorization": "Bearer sk-own-0123456789abcdef"}
    upstream.enqueue(http_response(200, dumps(response("resp_1"))))
    upstream.enqueue(http_response(200, CONVERSATION))
    send(client, "alice", "POST", RESPONSES, ASK, **own)
    send(client, "alice", "POST", CONVERSATIONS, {}, **own)
    for path in (f"{RESPONSES}/resp_1", f"{CONVERSATIONS}/conv_1"):
        assert send(client, "bob", "GET", path).status_code == 200


@pytest.mark.parametrize("store", [{}, {"store": True}, {"store": None}])
@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("path", [RESPONSES, f"{RESPONSES}/compact"])
def test_a_response_is_noted_however_it_came(
    client: FlaskClient, upstream: Upstream, store: dict[str, object], streamed: bool, path: str
) -> None:
    make_response(client, upstream, "alice", path=path, stream=streamed, **store)
    assert send(client, "bob", "GET", f"{RESPONSES}/resp_1").status_code == 404


def test_a_response_that_is_not_stored_is_not_noted(
    client: FlaskClient, upstream: Upstream, database_url: str
) -> None:
    make_response(client, upstream, "alice", store=False)
    make_response(client, upstream, "alice", "resp_2")
    wait_until(lambda: len(rows(database_url, tables.stored_objects)) == 1)
    assert [row["id"] for row in rows(database_url, tables.stored_objects)] == ["resp_2"]


def test_a_streamed_response_is_known_before_its_end(start: Start, upstream: Upstream) -> None:
    server = start(providers=[provider(upstream)], auth=AUTH)
    events = stream(response("resp_1", text("msg_1", "Hi")))
    created = events[: events.index(b"\n\n") + 2]
    upstream.enqueue(stream_head(), chunk(created), lambda sock: sock.settimeout(None) or sock.recv(1))
    maker = server.connect()
    maker.send("POST", "/openai/v1/responses", dumps({**ASK, "stream": True}), X_Remote_User="alice")
    maker.head()
    assert maker.chunk() == created
    assert get_status(server, "bob", "/openai/v1/responses/resp_1") == 404


@pytest.mark.parametrize("coding", ["", *COMPRESS])
@pytest.mark.parametrize("size", [1, 1000])
def test_a_conversation_is_noted_and_its_bytes_pass_unchanged(
    client: FlaskClient, upstream: Upstream, coding: str, size: int
) -> None:
    body = COMPRESS[coding](CONVERSATION) if coding else CONVERSATION
    headers = [f"Content-Encoding: {coding}"] if coding else []
    pieces = [chunk(body[at : at + size]) for at in range(0, len(body), size)]
    upstream.enqueue(head(200, "Transfer-Encoding: chunked", *headers), *pieces, chunk(b""))
    made = send(
        client, "alice", "POST", CONVERSATIONS, {"items": []}, Accept_Encoding="gzip, deflate, br, zstd"
    )
    assert (made.status_code, made.data) == (200, body)
    assert send(client, "bob", "GET", f"{CONVERSATIONS}/conv_1").status_code == 404
    assert send(client, "alice", "GET", f"{CONVERSATIONS}/conv_1").status_code == 200


LONG = b'{"metadata":{"a":"' + b"a" * 70_000 + b'"},"id":"conv_1"}'


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (400, CONVERSATION, ()),
        (200, b"", ()),
        (200, b'["conv_1"]', ()),
        (200, b'{"id":1}', ()),
        (200, CONVERSATION[:30], ()),
        (200, LONG, ()),
        (200, gzip.compress(LONG), ("Content-Encoding: gzip",)),
        (200, b"conv_1", ("Content-Encoding: gzip",)),
        (200, CONVERSATION, ("Content-Encoding: of-tomorrow",)),
    ],
)
def test_an_answer_that_tells_of_no_conversation_passes_unchanged(
    client: FlaskClient, upstream: Upstream, status: int, body: bytes, headers: tuple[str, ...]
) -> None:
    upstream.enqueue(http_response(status, body, *headers))
    made = send(client, "alice", "POST", CONVERSATIONS, {})
    assert (made.status_code, made.data) == (status, body)
    assert send(client, "bob", "GET", f"{CONVERSATIONS}/conv_1").status_code == 200


def test_a_conversation_that_a_response_has_begun_is_its_actors(
    client: FlaskClient, upstream: Upstream
) -> None:
    make_response(client, upstream, "alice", changes={"conversation": {"id": "conv_1"}})
    assert send(client, "bob", "GET", f"{CONVERSATIONS}/conv_1").status_code == 404


@pytest.mark.parametrize("continued", [{"conversation": "conv_1"}, {"previous_response_id": "resp_0"}])
def test_an_unknown_conversation_is_not_claimed_by_its_use(
    client: FlaskClient, upstream: Upstream, continued: dict[str, object]
) -> None:
    make_response(client, upstream, "bob", changes={"conversation": {"id": "conv_1"}}, **continued)
    assert send(client, "alice", "GET", f"{CONVERSATIONS}/conv_1").status_code == 200


def test_what_was_deleted_stays_its_makers(client: FlaskClient, upstream: Upstream) -> None:
    make_response(client, upstream, "alice")
    assert send(client, "alice", "DELETE", f"{RESPONSES}/resp_1").status_code == 200
    upstream.enqueue(http_response(404, b'{"error":{}}'))
    assert send(client, "alice", "GET", f"{RESPONSES}/resp_1").data == b'{"error":{}}'
    assert send(client, "bob", "GET", f"{RESPONSES}/resp_1").get_json()["error"]["code"] == "not_found"


def test_instances_may_share_an_account_or_not(
    clients: Callable[..., FlaskClient], upstream: Upstream
) -> None:
    both = [provider(upstream), provider(upstream, "strict", "second")]
    client, second = clients(providers=both), f"{PREFIX}/second/v1/responses"
    make_response(client, upstream, "alice")
    assert send(client, "alice", "GET", f"{second}/resp_1").status_code == 200
    assert send(client, "bob", "GET", f"{second}/resp_1").status_code == 404
    make_response(client, upstream, "bob", path=second)
    assert send(client, "bob", "GET", f"{second}/resp_1").status_code == 200
    assert send(client, "alice", "GET", f"{second}/resp_1").status_code == 404
    assert send(client, "alice", "GET", f"{RESPONSES}/resp_1").status_code == 200


@BOTH_DATABASES
def test_a_later_process_knows_what_is_in_the_database(
    clients: Callable[..., FlaskClient], upstream: Upstream, database_url: str
) -> None:
    first = clients()
    make_response(first, upstream, "alice")
    make_conversation(first, upstream, "root")
    wait_until(lambda: len(rows(database_url, tables.stored_objects)) == 2)
    first.application.extensions["aibridge"].close(first.application)
    later = clients("strict")
    for path, maker in ((f"{RESPONSES}/resp_1", "alice"), (f"{CONVERSATIONS}/conv_1", "root")):
        assert send(later, "bob", "GET", path).status_code == 404
        assert send(later, maker, "GET", path).status_code == 200


@pytest.mark.parametrize("ownership", ["known", "strict"])
def test_a_host_knows_its_own_while_the_database_is_away(
    clients: Callable[..., FlaskClient], upstream: Upstream, ownership: str
) -> None:
    make_response(clients(ownership, database_url=AWAY), upstream, "alice")
    other = clients(ownership, database_url=AWAY)
    assert send(other, "bob", "GET", f"{RESPONSES}/resp_1").status_code == 404
    assert send(other, "alice", "GET", f"{RESPONSES}/resp_1").status_code == 200


def test_a_database_without_the_table_is_like_one_that_is_away(
    clients: Callable[..., FlaskClient], database_url: str
) -> None:
    with databases.connect(database_url).begin() as connection:
        tables.stored_objects.drop(connection)
    for ownership, status in (("known", 200), ("strict", 404)):
        assert send(clients(ownership), "bob", "GET", f"{RESPONSES}/resp_1").status_code == status


# The models of the account


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/openai/v1/models/ft:gpt", "/openai/v1/models", "/anthropic/v1/models/x"])
def test_only_admins_change_models(make_app: MakeApp, upstream: Upstream, method: str, path: str) -> None:
    client, path = make_app(auth=AUTH).test_client(), PREFIX + path
    upstream.handler = lambda request: [http_response(200, b"{}")]
    refused = send(client, "bob", method, path)
    error = refused.get_json()["error"]
    assert (refused.status_code, error["type"]) == (403, "permission_error")
    assert refused.headers["x-should-retry"] == "false"
    assert upstream.requests == []
    own = {"Authorization": "Bearer sk-own-0123456789abcdef"}
    assert send(client, "bob", method, path, **own).status_code == 200
    assert send(client, "root", method, path).status_code == 200
    for reading in ("GET", "HEAD"):
        assert send(client, "bob", reading, path).status_code == 200


# Under real servers


def test_a_silent_database_holds_nobody_else_up(
    start: Start, upstream: Upstream, postgres: Postgres, migrated_postgres: str
) -> None:
    upstream.handler = lambda request: [http_response(200, b"{}")]
    url = postgres.new_url(migrated_postgres)
    server = start(providers=[provider(upstream)], auth=AUTH, database_url=url)
    server.wait_until_applied()
    with postgres.silent():
        waiting = server.connect()
        waiting.send("GET", "/openai/v1/responses/resp_1", X_Remote_User="bob")
        assert get_status(server, "bob", "/openai/v1/models") == 200
        assert select.select([waiting.sock], [], [], 0)[0] == []  # it still looks the id up
        assert waiting.head()[0] == 200
        begun = time.monotonic()
        assert get_status(server, "bob", "/openai/v1/responses/resp_2") == 200
        assert time.monotonic() - begun < 1  # the database is known to be away


def get_status(server: Server, actor: str, path: str) -> int:
    client = server.connect()
    client.send("GET", path, X_Remote_User=actor)
    return client.head()[0]


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_a_worker_knows_what_another_one_has_just_made(start: Start, upstream: Upstream, kind: str) -> None:
    """One worker is stopped at a time, so that the other one serves; what it made is not applied meanwhile."""
    upstream.handler = lambda request: [http_response(200, b"{}")]
    server = start("--workers=2", kind=kind, providers=[provider(upstream)], auth=AUTH)
    wait_until(lambda: len(server.workers()) == 2)
    first, second = server.workers()
    os.kill(second, signal.SIGSTOP)
    for path, body in (("responses", dumps(response("resp_1"))), ("conversations", CONVERSATION)):
        upstream.enqueue(http_response(200, body))
        client = server.connect()
        client.send("POST", f"/openai/v1/{path}", dumps(ASK), X_Remote_User="alice")
        assert client.body(client.head()[1]) == (body, True)
    os.kill(first, signal.SIGSTOP)
    os.kill(second, signal.SIGCONT)
    for path in ("responses/resp_1", "conversations/conv_1"):
        assert get_status(server, "bob", f"/openai/v1/{path}") == 404
        assert get_status(server, "alice", f"/openai/v1/{path}") == 200
    os.kill(first, signal.SIGCONT)


def test_each_response_between_rounds_of_tools_is_noted(
    start: Start, upstream: Upstream, docs: ScriptedMcp
) -> None:
    servers = [{"name": "docs", "url": docs.url}]
    server = start(providers=[provider(upstream)], auth=AUTH, mcp_servers=servers).wait_ready("/readyz")
    for answer in (
        response("resp_1", call("1", ADD, '{"a":1,"b":2}')),
        response("resp_2", text("msg_1", "3")),
    ):
        upstream.enqueue(http_response(200, dumps(answer)))
    client = server.connect()
    client.send("POST", "/openai/v1/responses", dumps(ASK), X_Remote_User="alice")
    status, headers = client.head()
    data: Any = json.loads(client.body(headers)[0])
    assert (status, data["id"]) == (200, "resp_2")
    for id in ("resp_1", "resp_2"):
        assert get_status(server, "bob", f"/openai/v1/responses/{id}") == 404


def test_openais_package_tells_that_it_is_not_found(start: Start, upstream: Upstream) -> None:
    server = start(providers=[provider(upstream, "strict")], auth=AUTH)
    who = {"X-Remote-User": "bob"}
    with openai.OpenAI(
        base_url=f"{server.url}/openai/v1", api_key="aib_x", default_headers=who, timeout=TIMEOUT_SECONDS
    ) as client:
        with pytest.raises(openai.NotFoundError, match="Response with id 'resp_1' not found"):
            client.responses.retrieve("resp_1")
        with pytest.raises(openai.NotFoundError, match="Previous response with id 'resp_1' not found"):
            client.responses.create(model="m", input="hi", previous_response_id="resp_1")
    assert upstream.requests == []
