"""Raw dumps of requests to an upstream and of its responses."""

from __future__ import annotations

import gzip
import json
import os
import stat
import threading
import time
import zlib
from pathlib import Path

import brotli
import pytest
import zstandard

from aibridge_flask import ConfigError, config
from aibridge_flask.upstream.dump_file import DumpFile, sweep
from aibridge_flask.upstream.dump_writer import DumpWriter
from tests.conftest import MakeApp, Start
from tests.support.dialogue import ASK, END, MESSAGES, START
from tests.support.server import PREFIX, Server, wait_until
from tests.support.upstream import CLOSE, LAST_CHUNK, Upstream, chunk, http_response, stream_head

KEYS = ("sk-ant-first-0123456789", "sk-ant-later-0123456789")
HINT = "sk-a...6789"
OWN = "sk-own/abcdefghij-0123456789"


def compress(data: bytes, codings: str) -> bytes:
    """Applies content codings, as a header names them."""
    compressors = {
        "gzip": gzip.compress,
        "deflate": zlib.compress,
        "br": brotli.compress,
        "zstd": zstandard.compress,
    }
    for name in filter(None, codings.split(", ")):
        data = compressors[name](data)
    return data


def provider(upstream: Upstream, folder: Path, **options: object) -> dict[str, object]:
    keys = [{"value": key} for key in KEYS]
    return {
        "type": "anthropic",
        "base_url": upstream.url,
        "keys": keys,
        "api_dump_dir": str(folder),
        **options,
    }


def dumps(folder: Path, kind: str, count: int = 1, id: str = "") -> list[Path]:
    """Waits for `count` dumps of a kind, or of one interception; returns them in order."""

    def paths() -> list[Path]:
        return sorted(folder.glob(f"anthropic/*/*{id}.{kind}.txt"), key=lambda path: path.name)

    wait_until(lambda: len(paths()) >= count and all(path.stat().st_size for path in paths()))
    assert len(paths()) == count
    return paths()


def post(server: Server, body: bytes, path: str = MESSAGES, **headers: str) -> tuple[int, str, bytes]:
    client = server.connect()
    client.send("POST", path, body, **headers)
    status, response_headers = client.head()
    data, whole = client.body(response_headers)
    assert whole
    client.close()
    return status, response_headers.get("x-aibridge-interception-id", ""), data


def read_until(path: Path, expected: bytes) -> bytes:
    wait_until(lambda: expected in path.read_bytes())
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_a_dump_grows_with_the_stream(start: Start, upstream: Upstream, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "new" / "dumps"
    server = start(kind=kind, providers=[provider(upstream, folder)])
    go = threading.Event()
    upstream.enqueue(stream_head("request-id: r1"), chunk(START), go, chunk(END), LAST_CHUNK)
    client = server.connect()
    before = time.time_ns() // 1_000_000
    client.send("POST", MESSAGES, ASK, User_Agent="x/1")
    _, headers = client.head()
    assert client.chunk() == START
    (response,) = dumps(folder, "resp")
    assert read_until(response, START).endswith(b"\r\n\r\n" + START)
    go.set()
    assert client.chunk() == END
    assert read_until(response, END) == (
        b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n"
        b"request-id: r1\r\n\r\n" + START + END
    )
    (request,) = dumps(folder, "req")
    (received,) = upstream.requests
    header_lines = [f"{name}: {HINT if value in KEYS else value}" for name, value in received.headers]
    lines = ["POST /v1/messages HTTP/1.1", *header_lines, "", ""]
    assert request.read_bytes() == "\r\n".join(lines).encode() + received.body
    stamp, _, id = request.name.removesuffix(".req.txt").partition("-")
    assert id == headers["x-aibridge-interception-id"]
    assert before <= int(stamp) <= time.time_ns() // 1_000_000
    assert response.name == f"{stamp}-{id}.resp.txt"
    assert request.parent == response.parent == folder / "anthropic" / "claude-sonnet-4-5"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (request, response)] == [0o600, 0o600]
    folders = [request.parent, *request.parent.parents[:2]]
    assert [stat.S_IMODE(path.stat().st_mode) for path in folders] == [0o700] * 3


def test_each_attempt_has_its_own_files(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    server = start(providers=[provider(upstream, tmp_path / "d", max_retries=1)])
    upstream.enqueue(http_response(429, b'{"first":1}'))
    upstream.enqueue(http_response(503, b'{"then":2}', "Retry-After: 0"))
    upstream.enqueue(http_response(200, b"{}"))
    assert post(server, ASK.replace(b"claude", b"azure/claude"))[0] == 200
    requests, responses = dumps(tmp_path / "d", "req", 3), dumps(tmp_path / "d", "resp", 3)
    assert {path.parent.name for path in requests} == {"azure-claude-sonnet-4-5"}
    assert [path.name[:-8] for path in requests] == [path.name[:-9] for path in responses]
    messages = [read_until(path, b"}").partition(b"\r\n\r\n") for path in responses]
    assert [parts[0].split()[1] for parts in messages] == [b"429", b"503", b"200"]
    assert [parts[2] for parts in messages] == [b'{"first":1}', b'{"then":2}', b"{}"]


def test_a_failed_request_dumps_the_error(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    server = start(providers=[provider(upstream, tmp_path / "d")])
    upstream.enqueue(b"junk\r\n\r\n", CLOSE)
    assert post(server, ASK)[0] == 502
    (error,) = dumps(tmp_path / "d", "req_error")
    head, _, message = read_until(error, b"reached").partition(b"\r\n\r\n")
    (request,) = dumps(tmp_path / "d", "req")
    assert request.read_bytes() == head + b"\r\n\r\n" + ASK
    assert message == b"the AI provider could not be reached\n"
    assert list((tmp_path / "d").rglob("*.resp.txt")) == []


def test_passthrough_requests_have_a_folder_of_their_own(
    start: Start, upstream: Upstream, tmp_path: Path
) -> None:
    server = start(providers=[provider(upstream, tmp_path / "d")])
    upstream.enqueue(http_response(200, b'{"input_tokens":9}'))
    assert post(server, b'{"model":"m"}', "/anthropic/v1/messages/count_tokens?a=b")[0] == 200
    (request,) = dumps(tmp_path / "d", "req")
    assert request.parent == tmp_path / "d" / "anthropic" / "passthrough"
    assert read_until(request, b'{"model":"m"}').startswith(
        b"POST /v1/messages/count_tokens?a=b HTTP/1.1\r\n"
    )
    (response,) = dumps(tmp_path / "d", "resp")
    assert read_until(response, b'{"input_tokens":9}').startswith(b"HTTP/1.1 200 X\r\n")


def test_credentials_are_masked_in_dumps(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    server = start(providers=[provider(upstream, tmp_path / "d")])
    key_start, key_end = OWN[:9].encode(), OWN[9:].encode()
    response_headers = ("Set-Cookie: session=0123456789abcdefghijklmnop", f"X-Echo: <{OWN}>")
    upstream.enqueue(
        stream_head(*response_headers),
        chunk(b"you said " + key_start),
        chunk(key_end + b", " + key_start),
        CLOSE,
    )
    client = server.connect()
    body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": OWN}]}).encode()
    headers = {"Authorization": f"Bearer {OWN}", "X_Note": f"key={OWN}", "Api_Key": "anazurekey-0123456789"}
    client.send("POST", MESSAGES, body, **headers)
    client.head()
    client.chunks()
    assert (authorization := upstream.requests[0].header("authorization")) == f"Bearer {OWN}"
    (request,), (response,) = dumps(tmp_path / "d", "req"), dumps(tmp_path / "d", "resp")
    request_dump, response_dump = read_until(request, b'"content": "'), read_until(response, b", ...")
    for text in (request_dump, response_dump):
        assert authorization.encode()[7:] not in text
        assert key_start not in text
        assert b"anazurekey" not in text
        assert b"0123456789abcdef" not in text
    assert request_dump.count(b"sk-o...6789") == 3
    assert b"Authorization: Bearer sk-o...6789\r\n" in request_dump
    assert b"X-Note: key=sk-o...6789\r\n" in request_dump
    assert b"Set-Cookie: session=0123...mnop\r\nX-Echo: <sk-o...6789>" in response_dump
    assert response_dump.endswith(b"\r\n\r\nyou said sk-o...6789, ...")


SESSION, CHALLENGE = "0123456789abcdefghijklmnop", 'realm="api", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c0"'


@pytest.mark.parametrize("coding", ["", "gzip", "deflate", "br", "zstd", "gzip, br"])
def test_secrets_of_both_sides_are_masked_in_compressed_bodies_too(
    start: Start, upstream: Upstream, tmp_path: Path, coding: str
) -> None:
    server = start(providers=[provider(upstream, tmp_path / "d")])
    answer = compress(f"session {SESSION} of {OWN}, challenge {CHALLENGE}!".encode(), coding)
    encoding = [f"Content-Encoding: {coding}"] if coding else []
    challenges = (f"WWW-Authenticate: Digest {CHALLENGE}", f"Proxy-Authentication-Info: {CHALLENGE}")
    secrets = (f"Set-Cookie: sid={SESSION}; Path=/; Secure", *challenges)
    upstream.enqueue(http_response(401, answer, *encoding, *secrets))
    headers = {"Authorization": f"Bearer {OWN}", **({"Content_Encoding": coding} if coding else {})}
    client = server.connect()
    client.send("GET", "/anthropic/v1/models", compress(f"by {OWN}".encode(), coding), **headers)
    client.body(client.head()[1])
    (request,), (response,) = dumps(tmp_path / "d", "req"), dumps(tmp_path / "d", "resp")
    dumped = read_until(response, b"!")
    for text in (dumped, read_until(request, b"by ")):
        assert not [secret for secret in (SESSION, OWN, CHALLENGE) if secret.encode() in text]
    assert dumped.endswith(b'session 0123...mnop of sk-o...6789, challenge real...0c0"!')
    assert b"Set-Cookie: sid=0123...mnop; Path=/; Secure\r\n" in dumped
    assert b'WWW-Authenticate: Digest real...0c0"\r\n' in dumped


@pytest.mark.parametrize(
    ("coding", "answer", "note"),
    [
        ("snappy", OWN.encode(), b"content coding 'snappy' is not supported"),
        ("gzip", b"no gzip " + OWN.encode(), b"not in the content coding that it names"),
        ("gzip", gzip.compress(bytes(40 << 20)), b"too large"),
    ],
)
def test_a_body_that_cannot_be_decoded_is_left_out(
    start: Start, upstream: Upstream, tmp_path: Path, coding: str, answer: bytes, note: bytes
) -> None:
    server = start(providers=[provider(upstream, tmp_path / "d")])
    upstream.enqueue(http_response(200, answer, f"Content-Encoding: {coding}"))
    client = server.connect()
    client.send("GET", "/anthropic/v1/models", b"", X_Api_Key=OWN)
    assert client.body(client.head()[1]) == (answer, True)
    (response,) = dumps(tmp_path / "d", "resp")
    dumped = read_until(response, b"]\n")
    assert note in dumped
    assert OWN.encode() not in dumped


def test_a_very_short_key_leaves_the_body_readable(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    server = start(providers=[provider(upstream, tmp_path / "d")])
    upstream.enqueue(http_response(200, b'{"x":1}'))
    post(server, ASK, X_Api_Key="o")
    (request,) = dumps(tmp_path / "d", "req")
    assert b"X-Api-Key: ...\r\n" in read_until(request, ASK)


@pytest.mark.parametrize(
    "model",
    ["", ".", "..", "../../out", "/etc/passwd", "a\0b", "\n\r", "x" * 5000, "C:\\x", "NUL", "é/ü", ".hid", "A", "a"],
)  # fmt: skip
def test_no_model_name_escapes_the_folder(
    make_app: MakeApp, upstream: Upstream, tmp_path: Path, model: str
) -> None:
    folder = tmp_path / "here" / "dumps"
    app = make_app(providers=[provider(upstream, folder)])
    upstream.enqueue(http_response(200, b"{}"))
    app.test_client().post(PREFIX + MESSAGES, json={"model": model}, buffered=True)
    (request,) = dumps(folder, "req")
    assert request.parent.parent == folder / "anthropic"
    assert 0 < len(request.parent.name) <= 100
    assert not request.parent.name.startswith(".")
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["dumps"]


def test_a_dump_is_truncated_at_its_limit_and_the_answer_is_not(
    start: Start, upstream: Upstream, tmp_path: Path
) -> None:
    server = start(providers=[provider(upstream, tmp_path / "d")])
    large = b'{"text":"' + b"x" * (40 << 20) + b'"}'
    upstream.enqueue(http_response(200, large))
    assert post(server, ASK)[2] == large
    (response,) = dumps(tmp_path / "d", "resp")
    wait_until(lambda: response.read_bytes().endswith(b"x\n[cut: a file is 32 MiB at most]\n"))
    assert (31 << 20) < response.stat().st_size <= 32 << 20


def test_an_unwritable_folder_gives_one_warning_and_requests_go_on(
    start: Start, upstream: Upstream, tmp_path: Path
) -> None:
    server = start(providers=[provider(upstream, tmp_path / "d")])
    (tmp_path / "d").rmdir()
    (tmp_path / "d").write_text("in the way")
    upstream.handler = lambda received: [http_response(200, b'{"id":"m"}')]
    assert [post(server, ASK)[::2] for _ in range(5)] == [(200, b'{"id":"m"}')] * 5
    warning = f"dumps cannot be written to {tmp_path}/d: Not a directory"
    wait_until(lambda: warning in server.log.read_text())
    (tmp_path / "d").unlink()
    _, id, _ = post(server, ASK)  # those before may be written only now, too
    read_until(dumps(tmp_path / "d", "resp", id=id)[0], b'{"id":"m"}')
    assert server.log.read_text().count("dumps cannot") == 1
    server.stop_cleanly()


class StuckFile(DumpFile):
    """A file on a disk that does not write until `go` is set."""

    go = threading.Event()

    def write(self, data: bytes, last: bool) -> None:
        self.go.wait()
        super().write(data, last)


def test_dumps_are_cut_when_the_disk_is_too_slow(tmp_path: Path) -> None:
    writer = DumpWriter(tmp_path)
    (tmp_path / "p" / "m").mkdir(parents=True)
    slow, later = (StuckFile(str(tmp_path / "p" / "m" / name), ()) for name in ("slow", "later"))
    for _ in range(70):
        writer.put(slow, b"x" * (1 << 20))
    writer.put(slow, b"and more")
    writer.end(slow)
    writer.put(later, b"y" * (1 << 20))
    writer.end(later)
    StuckFile.go.set()
    writer.close()
    assert (tmp_path / "p" / "m" / "later").read_bytes() == b"\n[cut: the disk is too slow]\n"
    text = (tmp_path / "p" / "m" / "slow").read_bytes()
    assert set(text[: 30 << 20]) == {ord("x")}
    assert b"and more" not in text
    assert text.endswith(b"]\n")


def test_only_old_and_surplus_dumps_are_swept(tmp_path: Path) -> None:
    now, day = time.time(), 86_400
    names = {}
    for count, (size, age) in enumerate(
        [(600 << 20, 1), (300 << 20, 2), (200 << 20, 3), (1, 4), (1, 8 * day)]
    ):
        path = tmp_path / "anthropic" / f"m{count}" / f"{1_700_000_000_000 + count}-0a-1.resp.txt"
        names[count] = path
        path.parent.mkdir(parents=True)
        path.touch()
        os.truncate(path, size)
        os.utime(path, (now - age, now - age))
    other_files = [
        tmp_path / "anthropic" / "m4" / "notes.txt",
        tmp_path / "1700000000000-0a.req.txt",
        tmp_path / "a" / "x",
    ]
    for path in other_files:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
        os.utime(path, (0, 0))
    (tmp_path / "empty" / "too").mkdir(parents=True)
    sweep(tmp_path)
    assert [count for count, path in names.items() if path.exists()] == [0, 1]
    assert all(path.exists() for path in other_files)
    assert sorted(path.name for path in (tmp_path / "anthropic").iterdir()) == ["m0", "m1", "m4"]
    assert (tmp_path / "empty" / "too").exists()
    sweep(tmp_path / "missing")


def test_the_writers_thread_sweeps(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    old = tmp_path / "d" / "anthropic" / "m" / "1700000000000-0a.req.txt"
    old.parent.mkdir(parents=True)
    old.write_text("old")
    os.utime(old, (0, 0))
    server = start(providers=[provider(upstream, tmp_path / "d")])
    upstream.enqueue(http_response(200, b"{}"))
    post(server, ASK)
    wait_until(lambda: not old.exists())


def test_dumps_are_flushed_at_shutdown(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    server = start("--workers=2", providers=[provider(upstream, tmp_path / "d")])
    upstream.handler = lambda received: [http_response(200, b"the end")]
    assert [post(server, ASK)[0] for _ in range(20)] == [200] * 20
    server.stop_cleanly()
    assert [path.read_bytes()[-7:] for path in dumps(tmp_path / "d", "resp", 20)] == [b"the end"] * 20


@pytest.mark.parametrize("folder", ["/dev/null/x", "/dev/null", "a\0b", "/proc/x"])
def test_an_impossible_folder_stops_the_start(folder: str, upstream: Upstream) -> None:
    tree = {"providers": [{"type": "copilot"}, provider(upstream, Path(folder))]}
    with pytest.raises(ConfigError) as caught:
        config.load(tree)
    assert caught.value.message.startswith("providers[1].api_dump_dir: a folder that can be written is")
