"""The bridge that the fuzzer runs against: its secrets are known, and every answer, log line and request is looked at."""

from __future__ import annotations

import contextlib
import socket
import urllib.request
from base64 import b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from click.testing import CliRunner

from aibridge_flask.cli import aibridge
from tests.support import mcp
from tests.support.fuzz.answers import Answer
from tests.support.fuzz.clients import BASIC, PERCENT, PLAIN, TOKEN, ClientRequest
from tests.support.fuzz.data import Cuts
from tests.support.fuzz.profile import is_long
from tests.support.robustness import check_memory_returns, resident_mib
from tests.support.server import TIMEOUT_SECONDS, Server, check_log, wait_until
from tests.support.upstream import CLOSE, ReceivedRequest, Step, Upstream, http_response

CENTRAL = {"/ant": "sk-ant-central-0123456789-abcdef", "/oai": "sk-oai-central-0123456789-abcdef"}
TOOL_SECRET = "tool-secret-0123456789-abcdef"
PLAIN_ANSWER = b'{"id":"plain","content":[],"usage":{"input_tokens":1,"output_tokens":1}}'
# Allocators keep what each thread once needed for a moment: after 10,000 exchanges some 65 MiB, and no more
# then, while what is in use stays the same.
_MAX_GROWTH_MIB = 90 if is_long() else 40
_MAX_FURTHER_FILES = 8


@dataclass(frozen=True)
class Received:
    """What the client has received; without a status: nothing."""

    status: int
    body: bytes
    is_complete: bool


class FuzzedBridge:
    """A server with providers with and without tools, at an upstream that answers as it is told."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.upstream, self.tools = folder, Upstream(), Upstream()
        docs = mcp.ScriptedMcp(self.tools)
        self.server = Server(
            folder, _settings(folder, self.upstream.url, docs.url), "--log-level", "debug", is_forked=True
        ).wait_ready("/readyz")
        environ = {"AIBRIDGE_CONFIG": str(self.server.config)}
        options = ["token", "create", "--user", "alice", "--admin"]
        self.token = CliRunner().invoke(aibridge, options, env=environ).stdout.strip()
        assert self.token.startswith("aib_")
        self.server.headers["X-AIBridge-Token"] = self.token
        self._basic = b64encode(f"user:{self.token}".encode()).decode().rstrip("=")
        self._answer: Answer | None = None
        self._log = self.server.log.open("rb")
        self.upstream.handler = self._steps
        self.upstream_requests: list[ReceivedRequest] = []

    def close(self) -> None:
        self.server.disconnect()
        self._log.close()
        log = self.server.stop()
        self.upstream.close()
        self.tools.close()
        check_log(log)
        assert not self.holds_secret(log.encode())

    # One exchange

    def exchange(self, request: ClientRequest, answer: Answer) -> Received:
        """Sends the request, to which the upstream gives the answer, and checks all that must hold."""
        workers, self._answer = self.server.workers(), answer
        for requests in (self.upstream_requests, self.upstream.requests, self.tools.requests):
            requests.clear()
        raw = self._send(request)
        received = parse_response(raw, request.method)
        assert raw or not request.is_whole, "no answer"
        assert received.status != 500 or answer.status == 500 or not answer.is_whole
        assert not self.holds_secret(raw)
        self._check_relayed(request, answer, received)
        self.check_serves()
        self._check_upstream_requests()
        self._check_log()
        assert self.server.workers() == workers
        return received

    def check_serves(self) -> None:
        """A plain request gets its own answer."""
        assert self.server.post("/anthropic/v1/messages", PLAIN, X_AIBridge_Token=self.token)[:3] == (
            200,
            PLAIN_ANSWER,
            True,
        )
        self.server.disconnect()

    def get(self, target: str) -> Received:
        """GETs a resource of the bridge itself."""
        lines = f"GET {self.server.prefix}{target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nX-AIBridge-Token: {self.token}\r\n\r\n"
        raw = self._send(ClientRequest("GET", lines.encode("latin-1"), Cuts(), b"", True))
        assert not self.holds_secret(raw)
        self._check_log()
        return parse_response(raw, "GET")

    def _send(self, request: ClientRequest) -> bytes:
        """Sends until the server has enough, and reads until it closes the connection."""
        with socket.create_connection(("127.0.0.1", self.server.port), TIMEOUT_SECONDS) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(OSError):
                for piece in request.cuts(self._with_token(request.wire)):
                    sock.sendall(piece)
                if not request.is_whole:
                    sock.shutdown(socket.SHUT_WR)
            received = b""
            with contextlib.suppress(ConnectionError):
                while piece := sock.recv(1 << 18):
                    received += piece
        return received

    def _with_token(self, wire: bytes) -> bytes:
        percent = "".join(f"%{byte:02x}" for byte in self.token.encode())
        wire = wire.replace(TOKEN, self.token.encode()).replace(BASIC, self._basic.encode())
        return wire.replace(PERCENT, percent.encode())

    def _steps(self, received: ReceivedRequest) -> Iterable[Step]:
        if received.body == PLAIN:
            return [http_response(200, PLAIN_ANSWER)]
        self.upstream_requests.append(received)
        return [*self._answer.cuts(self._answer.wire), CLOSE] if self._answer else [CLOSE]

    # Checks

    def _check_relayed(self, request: ClientRequest, answer: Answer, received: Received) -> None:
        """An answer to the client's own body is the upstream's, byte for byte."""
        own = [sent for sent in self.upstream_requests if sent.body == request.body]
        if (
            request.is_whole
            and answer.is_whole
            and 200 <= answer.status < 300
            and self.upstream_requests == own[:1] != []
        ):
            body = b"" if request.method == "HEAD" else answer.body
            assert (received.status, received.body, received.is_complete) == (answer.status, body, True)

    def _check_upstream_requests(self) -> None:
        for sent in list(self.upstream_requests):
            base = sent.target[:4]
            assert base in (*CENTRAL, "/cop")
            key = CENTRAL.get(base, "none")
            name, value = ("x-api-key", key) if base == "/ant" else ("authorization", f"Bearer {key}")
            others = [(field, text) for field, text in sent.headers if (field.lower(), text) != (name, value)]
            assert len(sent.headers) - len(others) <= 1
            assert not self.holds_secret(
                str((sent.target, unquote(sent.target), others)).encode() + sent.body
            )

    def _check_log(self) -> None:
        text = self._log.read()
        assert b"Traceback" not in text, text.decode(errors="replace")
        assert not self.holds_secret(text)

    def holds_secret(self, data: bytes) -> bool:
        """Whether a secret, or more of it than a hint shows, is in the data."""
        secrets = [self.token, TOOL_SECRET, *CENTRAL.values()]
        return any(secret[5:-5].encode() in data for secret in secrets) or self._basic[8:-8].encode() in data

    # What remains

    def files(self) -> int:
        (worker,) = self.server.workers()
        return len(list(Path(f"/proc/{worker}/fd").iterdir()))

    @contextlib.contextmanager
    def settled(self) -> Iterator[None]:
        """What runs in it leaves no memory, no files and no secret behind."""
        for _ in range(20):
            self.check_serves()
        self.get("/interceptions?limit=1")
        memory, files = resident_mib(self.server), self.files()
        yield
        self.upstream.reset()  # closes idle connections
        self.upstream.handler = self._steps
        self.server.wait_until_applied()
        wait_until(lambda: self.files() <= files + _MAX_FURTHER_FILES)
        check_memory_returns(self.server, memory, _MAX_GROWTH_MIB)
        assert not self.holds_secret(self._metrics())
        assert [path for path in self._written() if self.holds_secret(path.read_bytes())] == []

    def _metrics(self) -> bytes:
        with urllib.request.urlopen(f"{self.server.url}/metrics", timeout=TIMEOUT_SECONDS) as response:
            return bytes(response.read())

    def _written(self) -> Iterator[Path]:
        """Database, logs of records, dumps, log."""
        for path in self.folder.rglob("*"):
            if path.is_file() and path != self.server.config:
                yield path


def _settings(folder: Path, upstream: str, docs: str) -> dict[str, object]:
    ant = {"type": "anthropic", "base_url": f"{upstream}/ant", "keys": [{"value": CENTRAL["/ant"]}]}
    oai = {"type": "openai", "base_url": f"{upstream}/oai/v1", "keys": [{"value": CENTRAL["/oai"]}]}
    dumps = {"api_dump_dir": str(folder / "dumps")}
    return {
        "providers": [
            {**ant, "inject_tools": False},
            {**oai, "inject_tools": False, **dumps},
            {**ant, "name": "tools-anthropic", **dumps},
            {**oai, "name": "tools-openai"},
            {"type": "copilot", "base_url": f"{upstream}/cop", "inject_tools": False},
        ],
        "auth": {"mode": "token"},
        "mcp": {"max_rounds": 3},
        "mcp_servers": [{"name": "docs", "url": docs, "headers": {"Authorization": {"value": TOOL_SECRET}}}],
        "metrics": {"enabled": True},
        "logs": {"level": "debug", "records": True},
        "client_timeout": 10.0,
        "read_timeout": 10.0,
        "max_body_bytes": 4 << 20,
        "drain_delay": 0,
    }


def parse_response(raw: bytes, method: str) -> Received:
    """The first final response."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    if not head:
        return Received(0, b"", False)
    status = int(head.split(b" ", 2)[1])
    if status < 200:
        return parse_response(rest, method)
    fields = [line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:]]
    framing = {name: value.strip() for name, value in fields}
    if method == "HEAD" or status in (204, 304):
        return Received(status, b"", True)
    if framing.get(b"transfer-encoding") == b"chunked":
        return Received(status, *_join_chunks(rest))
    length = int(framing.get(b"content-length", len(rest)))
    return Received(status, rest[:length], len(rest) >= length)


def _join_chunks(coded: bytes) -> tuple[bytes, bool]:
    """The data of the chunks, and whether the last one came."""
    body = b""
    while coded:
        size, _, coded = coded.partition(b"\r\n")
        if not int(size, 16):
            return body, True
        body, coded = body + coded[: int(size, 16)], coded[int(size, 16) + 2 :]
    return body, False
