"""What one client can make the bridge hold: memory, time of the processor, and files are bounded."""

from __future__ import annotations

import gzip
import json
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import zstandard
from flask import Flask

from tests.conftest import MakeApp, Start, providers
from tests.support.dialogue import ASK_BLOCKING, CHAT, MESSAGES
from tests.support.mcp import ScriptedMcp, method
from tests.support.robustness import (
    MIB,
    check_memory_returns,
    check_still_serves,
    fetch,
    resident_mib,
    track_memory_growth,
)
from tests.support.server import PREFIX, Server, wait_until
from tests.support.tool_dialects import CALLS, DIALECTS, ENDS, ToolDialect
from tests.support.upstream import (
    LAST_CHUNK,
    ReceivedRequest,
    Step,
    Upstream,
    chunk,
    http_response,
    stream_head,
)

LONG = "m" * MIB
WANTED = "m" * 256
RESPONSES = "/openai/v1/responses"
ROUNDS = 19
LONGEST_MS = 20
ESTABLISHED, CLOSE_WAIT = "01", "08"  # in /proc/net/tcp


# Names


def spool_bytes(server: Server) -> int:
    return sum(path.stat().st_size for path in (server.folder / "records.db-spool").rglob("*.log"))


@pytest.mark.parametrize("path", [MESSAGES, CHAT, RESPONSES])
def test_the_names_of_a_request_are_cut_in_records_and_pass_whole(
    server: Server, upstream: Upstream, path: str
) -> None:
    body = json.dumps(
        {"model": LONG, "metadata": {"user_id": f"_session_{LONG}"}, "messages": [], "input": []}
    )
    upstream.enqueue(http_response(200, b"{}"))
    before, client = spool_bytes(server), server.connect()
    long_header = "m" * 8000
    client.send(
        "POST",
        path,
        body.encode(),
        User_Agent=f"claude-cli/{long_header}",
        X_Claude_Code_Agent_Id=long_header,
    )
    status, headers = client.head()
    assert (status, client.body(headers)) == (200, (b"{}", True))
    record = server.record(headers["x-aibridge-interception-id"])
    assert upstream.requests[0].body == body.encode()
    session = WANTED if path == MESSAGES else ""
    assert (record["model"], record["client_session_id"], record["agent_id"]) == (WANTED, session, WANTED)
    assert record["user_agent"] == f"claude-cli/{long_header}"[:256]
    assert spool_bytes(server) - before < 10_000


TOOL_CALLS = {
    MESSAGES: {"id": LONG, "type": "message", "model": LONG, "usage": {"input_tokens": 1}, "content": [{"type": "tool_use", "id": LONG, "name": LONG, "input": {}}]},
    CHAT: {"id": LONG, "model": LONG, "usage": {"prompt_tokens": 1}, "choices": [{"message": {"tool_calls": [{"id": LONG, "function": {"name": LONG, "arguments": ""}}]}}]},
    RESPONSES: {"id": LONG, "model": LONG, "usage": {"input_tokens": 1}, "output": [{"type": "function_call", "id": LONG, "call_id": LONG, "name": LONG}]},
}  # fmt: skip


@pytest.mark.parametrize("path", TOOL_CALLS)
def test_the_names_of_an_answer_are_cut_in_records(server: Server, upstream: Upstream, path: str) -> None:
    answer = json.dumps(TOOL_CALLS[path]).encode()
    upstream.enqueue(http_response(200, answer))
    before, response = spool_bytes(server), fetch(server, ASK_BLOCKING, path)
    assert response.body == answer
    record = server.record(response.id)
    (usage,), (call,) = record["token_usages"], record["tool_usages"]
    assert (usage["provider_response_id"], usage["model"]) == (WANTED, WANTED)
    assert (call["provider_response_id"], call["tool_call_id"], call["tool"]) == (WANTED,) * 3
    assert spool_bytes(server) - before < 20_000


# Memory


def test_names_and_values_of_headers_are_not_kept(server: Server, upstream: Upstream) -> None:
    check_still_serves(server, upstream)
    upstream.handler = lambda received: [http_response(200, b"{}")]
    with track_memory_growth(server):
        before = resident_mib(server)
        for number in range(14):
            headers = {f"X_{number}_{each}_{'y' * 30_000}": "z" for each in range(60)}
            client = server.connect()
            client.send(
                "POST",
                MESSAGES,
                ASK_BLOCKING,
                User_Agent=f"{number}" * 15_000,
                Originator="o" * 30_000,
                **headers,
            )
            client.head()
            client.close()
        check_still_serves(server, upstream)
    check_memory_returns(server, before, 20)


def test_large_bodies_are_in_memory_little_more_than_once(server: Server, upstream: Upstream) -> None:
    """Once as the client's, and a part of them once more for a moment while they are read or sent."""
    message = {"role": "user", "content": "word " * 200}
    body = json.dumps({"model": "m", "messages": [message] * (20 * MIB // 1030)}).encode()
    check_still_serves(server, upstream)
    upstream.handler = lambda received: [http_response(200, b"{}")]
    with track_memory_growth(server) as growth:
        clients = [server.connect() for _ in range(4)]
        threads = [threading.Thread(target=client.send, args=("POST", MESSAGES, body)) for client in clients]
        for thread in threads:
            thread.start()
        assert [client.head()[0] for client in clients] == [200] * 4
        for thread in threads:
            thread.join()
    assert growth[0] < 4 * 1.6 * len(body) / MIB + 20


# Time of the processor


def start_watched(folder: Path, upstream: Upstream, **settings: object) -> Server:
    """A server that can tell for how many milliseconds at a time its hub was held since the last call."""
    (folder / "wsgi.py").write_text("from tests.support.watched import app\n")
    tree = {"providers": providers(upstream.url), "drain_delay": 0, **settings}
    return Server(folder, tree).wait_ready("/readyz")


@pytest.fixture(scope="module")
def watched(shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start_watched(tmp_path_factory.mktemp("watched"), shared_upstream)
    yield server
    server.stop_cleanly()


@pytest.fixture(scope="module")
def watched_toolbridge(
    shared_upstream: Upstream, shared_docs: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    servers = [{"name": "docs", "url": ScriptedMcp(shared_docs).url}]
    server = start_watched(tmp_path_factory.mktemp("watched"), shared_upstream, mcp_servers=servers)
    yield server
    server.stop_cleanly()


def held_ms(server: Server) -> float:
    with urllib.request.urlopen(f"{server.root}/held") as response:
        return float(json.load(response)["ms"])


def zstd_of(size: int) -> bytes:
    return zstandard.compress(b'{"model":"m","messages":[{"role":"user","content":"' + b"a" * size + b'"}]}')


def many_messages(size: int) -> bytes:
    message = {"role": "user", "content": "word " * 200}
    return json.dumps({"model": "m", "stream": True, "messages": [message] * (size // 1030)}).encode()


def asks(content: object, **members: object) -> bytes:
    message = {"role": "user", "content": content}
    return json.dumps({"model": "m", "messages": [message], **members}, ensure_ascii=False).encode()


def gives(output: object) -> bytes:
    """A Responses request with the result of a call."""
    item = {"type": "function_call_output", "call_id": "c", "output": output}
    return json.dumps({"model": "m", "input": [item]}).encode()


WORDS = "word " * (6 * MIB)
IMAGE = {"type": "base64", "media_type": "image/png", "data": "A" * 30 * MIB}
HEAVY: dict[str, Callable[[], tuple[str, bytes, str, int]]] = {
    "four small zstd bodies": lambda: (MESSAGES, zstd_of(27 * MIB), "zstd", 4),
    "four zstd bodies of a credible ratio": lambda: (MESSAGES, zstd_of(MIB - 100), "zstd", 4),
    "30 MiB": lambda: (MESSAGES, many_messages(30 * MIB), "", 1),
    "8 MiB whose usage is asked for": lambda: (CHAT, many_messages(8 * MIB), "", 1),
    "4 MiB of text": lambda: (MESSAGES, asks(WORDS[: 4 * MIB]), "", 1),
    "30 MiB of text": lambda: (MESSAGES, asks(WORDS), "", 1),
    "30 MiB of text in a block": lambda: (MESSAGES, asks([{"type": "text", "text": WORDS}]), "", 1),
    "30 MiB of text whose usage is asked for": lambda: (CHAT, asks(WORDS, stream=True), "", 1),
    "30 MiB of escapes": lambda: (CHAT, asks('"\\\n' * (5 * MIB)), "", 1),
    "30 MiB of text with a wide character": lambda: (RESPONSES, json.dumps({"input": "\U0001f600" + WORDS}, ensure_ascii=False).encode(), "", 1),
    "30 MiB of wide characters": lambda: (MESSAGES, asks("\U0001f600" * (7 * MIB)), "", 1),
    "half of a surrogate pair after 30 MiB": lambda: (MESSAGES, asks(WORDS)[:-4] + b'\\ud83d"}]}', "", 1),
    "a result of 30 MiB": lambda: (RESPONSES, gives(WORDS), "", 1),
    "a tool's result of 30 MiB": lambda: (MESSAGES, asks([{"type": "tool_result", "tool_use_id": "t", "content": WORDS}]), "", 1),
    "an image of 30 MiB": lambda: (MESSAGES, asks([{"type": "image", "source": IMAGE}, {"type": "text", "text": "hi"}]), "", 1),
    "a file of 30 MiB": lambda: (RESPONSES, gives([{"type": "input_file", "file_data": IMAGE["data"]}]), "", 1),
    "a million values": lambda: (MESSAGES, b'{"model":"m","x":[' + b"1," * 900_000 + b'1],"messages":[]}', "", 1),
    "a hundred thousand values": lambda: (MESSAGES, b'{"model":"m","x":[' + b"1," * 120_000 + b'1],"messages":[]}', "", 1),
    "many members": lambda: (CHAT, b'{"model":"m","stream":true,' + b",".join(b'"k%d":1' % number for number in range(20_000)) + b"}", "", 1),
    "deep arrays": lambda: (MESSAGES, b'{"model":"m","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "", 1),
    "deep objects": lambda: (MESSAGES, b'{"model":"m","x":' + b'{"a":' * 40_000 + b"1" + b"}" * 40_000 + b"}", "", 1),
    "many digits": lambda: (MESSAGES, b'{"model":"m","x":' + b"1" * 200_000 + b"}", "", 1),
    "lone surrogates": lambda: (MESSAGES, many_messages(2 * MIB)[:-2] + b',{"role":"user","content":"\\ud83d"}]}', "", 1),
}  # fmt: skip


def check_holds_nobody(measure: Callable[[], float]) -> None:
    """The least of a few times: other processes, and the garbage of others, only add to it."""
    times = [measure()]
    while times[-1] > LONGEST_MS and len(times) < 6:
        times.append(measure())
    assert min(times) <= LONGEST_MS


def check_request(server: Server, upstream: Upstream, name: str) -> None:
    path, body, coding, count = HEAVY[name]()
    upstream.handler = lambda received: [http_response(200, b"{}")]

    def measure() -> float:
        server.wait_until_applied()  # what the requests before have recorded is not this one's
        held_ms(server)
        clients = [server.connect() for _ in range(count)]
        for client in clients:
            client.send("POST", path, body, **({"Content_Encoding": coding} if coding else {}))
        assert {client.head()[0] for client in clients} <= {200, 400, 413}
        server.disconnect()
        server.wait_until_applied()
        return held_ms(server)

    check_holds_nobody(measure)


@pytest.mark.parametrize("name", HEAVY)
def test_no_request_holds_the_hub(watched: Server, upstream: Upstream, name: str) -> None:
    check_request(watched, upstream, name)


WITH_TOOLS = ("30 MiB", "30 MiB of text", "30 MiB of text whose usage is asked for", "a result of 30 MiB")


@pytest.mark.parametrize("name", WITH_TOOLS)
def test_no_request_with_tools_holds_the_hub(
    watched_toolbridge: Server, upstream: Upstream, docs: ScriptedMcp, name: str
) -> None:
    check_request(watched_toolbridge, upstream, name)


def stream_of(*pieces: bytes, header: str = "") -> list[bytes]:
    return [stream_head(*([header] if header else [])), *map(chunk, pieces), LAST_CHUNK]


THINKING = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"abc"}}\n\n'
CHAT_CHUNK = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"abc"}}]}\n\n'
LONG_TEXT = "word " * 1_200_000
LONG_DELTA = json.dumps({"id": "c", "choices": [{"index": 0, "delta": {"content": LONG_TEXT}}]}).encode()


def thought(text: str) -> bytes:
    return json.dumps({"id": "m", "content": [{"type": "thinking", "thinking": text}], "usage": {}}).encode()


def tool_use(text: str) -> bytes:
    block = {"type": "tool_use", "id": "t", "name": "x", "input": {"a": text}}
    return json.dumps({"id": "m", "content": [block], "usage": {}}).encode()


def response_with_call(text: str) -> dict[str, object]:
    call = {"type": "function_call", "call_id": "c", "name": "x", "arguments": text}
    return {"id": "r", "usage": {}, "output": [call]}


def failure(text: str) -> bytes:
    return json.dumps({"type": "error", "error": {"type": "api_error", "message": text}}).encode()


def long_event() -> bytes:
    return json.dumps({"type": "response.completed", "response": response_with_call(WORDS)}).encode()


def long_text_delta() -> bytes:
    return json.dumps(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": WORDS}}
    ).encode()


def event_of(data: bytes, line_end: bytes = b"\n") -> list[bytes]:
    event = b"data: " + data + line_end + line_end
    return stream_of(*(event[start : start + 65_536] for start in range(0, len(event), 65_536)))


HEAVY_ANSWERS: dict[str, Callable[[], tuple[str, list[bytes]]]] = {
    "a thought of 6 MB": lambda: (MESSAGES, [http_response(200, thought(LONG_TEXT))]),
    "a thought of 30 MiB": lambda: (MESSAGES, [http_response(200, thought(WORDS))]),
    "a call of 30 MiB": lambda: (MESSAGES, [http_response(200, tool_use(WORDS))]),
    "arguments of 30 MiB": lambda: (RESPONSES, [http_response(200, json.dumps(response_with_call(WORDS)).encode())]),
    "an error of 30 MiB": lambda: (MESSAGES, [http_response(400, failure(WORDS))]),
    "an event with a call of 30 MiB": lambda: (RESPONSES, event_of(long_event())),
    "an event with a text of 6 MB": lambda: (CHAT, event_of(LONG_DELTA)),
    "an event with a text of 30 MiB": lambda: (MESSAGES, event_of(long_text_delta(), b"\r\n")),
    "thousands of thoughts": lambda: (MESSAGES, stream_of(*[THINKING * 8000] * 4)),
    "thousands of texts": lambda: (CHAT, stream_of(*[CHAT_CHUNK * 15_000] * 4)),
    "blank lines": lambda: (MESSAGES, stream_of(b"\n" * MIB)),
    "lines ended by CR": lambda: (CHAT, stream_of(b"\r" * MIB)),
    "comments": lambda: (MESSAGES, stream_of(b":\n" * 500_000)),
    "empty events": lambda: (RESPONSES, stream_of(b"data\n\n" * 170_000)),
    "an event of 4 MiB": lambda: (RESPONSES, stream_of(b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"r","output":[{"result":"', *[b"a" * 65_536] * 64, b'"}]}}\n\n')),
    "a small body that decodes to a large one": lambda: (MESSAGES, stream_of(gzip.compress(THINKING * 100_000), header="Content-Encoding: gzip")),
    "a body of 8 MiB": lambda: (MESSAGES, [http_response(200, b'{"id":"m","content":[{"type":"text","text":"' + b"a" * (8 * MIB) + b'"}]}')]),
}  # fmt: skip


@pytest.mark.parametrize("name", HEAVY_ANSWERS)
def test_no_answer_holds_the_hub(watched: Server, upstream: Upstream, name: str) -> None:
    path, steps = HEAVY_ANSWERS[name]()
    body = b'{"model":"m","stream":true,"messages":[],"input":[]}'
    upstream.handler = lambda received: steps

    def measure() -> float:
        watched.wait_until_applied()  # what the requests before have recorded is not this one's
        held_ms(watched)
        assert fetch(watched, body, path).is_complete
        watched.wait_until_applied()
        return held_ms(watched)

    check_holds_nobody(measure)


# Files


def count_files(server: Server) -> int:
    (worker,) = server.workers()
    return len(list(Path(f"/proc/{worker}/fd").iterdir()))


@pytest.mark.parametrize("api", DIALECTS, ids=str)
def test_many_rounds_of_tools_need_no_more_files_than_one(
    start: Start, upstream: Upstream, docs: ScriptedMcp, api: ToolDialect
) -> None:
    server = start(mcp_servers=[{"name": "docs", "url": docs.url}], mcp={"max_rounds": ROUNDS + 1})
    server.wait_ready("/readyz")
    for _ in range(ROUNDS):
        api.enqueue(upstream, True, CALLS)
    api.enqueue(upstream, True, ENDS)
    counts: list[int] = []
    answer = docs.upstream.handler

    def count_and_answer(received: ReceivedRequest) -> Iterable[Step]:
        if method(received) == "tools/call":
            counts.append(count_files(server))
        return answer(received)

    docs.upstream.handler = count_and_answer
    _, _, whole, _ = server.post(api.path, api.request(True))
    assert whole
    assert len(counts) == ROUNDS
    assert max(counts) - counts[0] < ROUNDS / 2


def test_a_burst_leaves_no_connection_behind(
    make_app: MakeApp, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upstream ends idle connections; nobody asks for another one."""
    monkeypatch.setattr("aibridge_flask.upstream.idle._SWEEP_SECONDS", 0.02)
    app, arrived = make_app(), threading.Barrier(20)

    def answer(received: object) -> list[bytes]:
        arrived.wait()
        return [http_response(200, b"{}")]

    upstream.handler = answer
    threads = [threading.Thread(target=ask, args=(app,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert upstream.open_connections() == 20
    upstream.reset()
    wait_until(lambda: connections_to(upstream) == 0)


def ask(app: Flask) -> None:
    app.test_client().post(f"{PREFIX}{MESSAGES}", data=ASK_BLOCKING, buffered=True)


def connections_to(upstream: Upstream) -> int:
    """Counts the connections to the upstream that this process holds: open, or ended by the upstream alone."""
    remote = f":{upstream.port:04X}"
    lines = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    states = [state for _, _, peer, state, *_ in lines if peer.endswith(remote)]
    return len([state for state in states if state in (ESTABLISHED, CLOSE_WAIT)])
