"""A real gunicorn in its own process, and a client that shows every byte."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tests.support.forked import ForkedServer

# A shell that starts the tests in the background has SIGINT ignored, and servers started here would not hear it.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "/api/v2/aibridge"
TIMEOUT_SECONDS = 60.0  # on a busy machine
KEEPALIVE_SECONDS = 0.25

_GUNICORN = (str(Path(sys.executable).with_name("gunicorn")),)  # on USR2 it starts itself by this name
_PLAIN = (*_GUNICORN, "-c", os.devnull, "--no-control-socket", "--bind={bind}")
COMMANDS = {
    "gevent": (*_GUNICORN, "-c", str(ROOT / "gunicorn.conf.py")),
    "gthread": (*_PLAIN, "--worker-class=gthread", "--threads=32"),
    "sync": (*_PLAIN, "--worker-class=sync", "--workers=3"),
    "waitress": (sys.executable, "-m", "waitress", "--listen={bind}", "--threads=32"),
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], bool]) -> None:
    """Polls until the condition is true; fails after TIMEOUT_SECONDS."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def answers(url: str) -> bool:
    """Whether it answers with 200."""
    try:
        with urllib.request.urlopen(url) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def check_log(log: str) -> None:
    """Fails if a log has a traceback, and shows it."""
    found = log.find("Traceback")
    assert found < 0, log[max(0, found - 1000) : found + 4000]


def toml(tree: object) -> str:
    """A TOML value."""
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(value)}" for key, value in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(map(toml, tree)) + "]"
    return json.dumps(tree)


class Server:
    """The bridge under a real server: gunicorn as `gunicorn.conf.py` starts it, or another one."""

    def __init__(
        self,
        folder: Path,
        settings: dict[str, object],
        *options: str,
        kind: str = "gevent",
        prefix: str = PREFIX,
        environ: dict[str, str] = {},
        is_forked: bool = False,
    ) -> None:
        """`is_forked`: of a process that has imported what `kind` gevent needs, else by its command."""
        self.folder, self.port, self.prefix = folder, free_port(), prefix
        self.clients: list[Client] = []
        self.headers: dict[str, str] = {}  # that `get` sends
        self.root = f"http://127.0.0.1:{self.port}"
        self.url = self.root + prefix
        self.log = folder / "log"
        self.config = folder / "aibridge.toml"
        spool = str(folder / "records.db-spool")
        self.settings = {"database_url": f"sqlite:///{folder}/records.db", "spool_dir": spool, **settings}
        self._stop_signal = signal.SIGINT if kind == "waitress" else signal.SIGTERM
        self.configure()
        bind = f"127.0.0.1:{self.port}"
        inherited = {key: value for key, value in os.environ.items() if not key.endswith("_API_KEY")}
        variables = {"AIBRIDGE_CONFIG": str(self.config), "AIBRIDGE_BIND": bind, "PYTHONPATH": str(ROOT)}
        self._command = [part.format(bind=bind) for part in COMMANDS[kind]]
        self._command += [*options, "wsgi:app"]
        self._env = {**inherited, **variables, **environ}
        self._is_forked = is_forked and kind == "gevent"
        self.process: subprocess.Popen[bytes] | ForkedServer
        self.start()

    def start(self) -> Server:
        """Starts it, also again after it has ended."""
        if self._is_forked:
            self.process = ForkedServer(self._command, self.folder, self._env, self.log)
            return self
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, cwd=self.folder, env=self._env, stdout=log, stderr=log
            )
        return self

    def configure(self, **settings: object) -> None:
        """Writes the configuration file, with these changes."""
        tree = {**self.settings, **settings}
        self.config.write_text("".join(f"{key} = {toml(value)}\n" for key, value in tree.items()))

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def wait_ready(self, path: str = "/healthz") -> Server:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            try:
                self.get(path)
                return self
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.05)

    def get(self, path: str) -> dict[str, object]:
        """GETs JSON from the bridge itself."""
        request = urllib.request.Request(self.url + path, headers=self.headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            return json.load(response)

    def connect(self) -> Client:
        self.clients.append(Client(self.port, self.prefix))
        return self.clients[-1]

    def post(self, path: str, body: bytes, **headers: str) -> tuple[int, bytes, bool, str]:
        """POSTs on a new connection; returns status, body, whether the body is whole, and the
        interception's id.
        """
        client = self.connect()
        client.send("POST", path, body, **headers)
        status, response_headers = client.head()
        return status, *client.body(response_headers), response_headers["x-aibridge-interception-id"]

    def disconnect(self) -> None:
        while self.clients:
            self.clients.pop().close()

    def newest(self) -> dict[str, object]:
        """The newest interception, as recorded so far."""
        self.wait_until_applied()
        (newest,) = self.get("/interceptions?limit=1")["results"]
        return newest

    def wait_until_applied(self) -> None:
        """Waits until the database has all records: it gets them a moment after the response."""
        wait_until(self._is_applied)

    def _is_applied(self) -> bool:
        with contextlib.suppress(urllib.error.HTTPError):  # not ready yet
            return self.get("/readyz")["records_behind_bytes"] == 0
        return False

    def record(self, id: str) -> dict[str, object]:
        """Waits until an interception has ended; returns its record."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        limits = itertools.chain([5, 5, 50], itertools.repeat(1000))
        while True:
            results = self.get(f"/interceptions?limit={next(limits)}")["results"]
            records = [record for record in results if record["id"] == id]
            if records and records[0]["ended_at"]:
                return records[0]
            assert time.monotonic() < deadline, f"no ended record of {id}"

    def stop(self) -> str:
        """Stops it gracefully; returns its log."""
        self.process.send_signal(self._stop_signal)
        assert self.process.wait(TIMEOUT_SECONDS) == 0, self.log.read_text()
        return self.log.read_text()

    def stop_cleanly(self) -> None:
        """Stops it gracefully. Fails if its log has a traceback."""
        check_log(self.stop())


class Client:
    """One connection to the bridge."""

    def __init__(self, port: int, prefix: str = PREFIX) -> None:
        self.prefix = prefix
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS)
        self.stream = self.sock.makefile("rb")

    def send(self, method: str, path: str, body: bytes = b"", version: str = "1.1", **headers: str) -> None:
        lines = [f"{method} {self.prefix}{path} HTTP/{version}", "Host: 127.0.0.1"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if body or method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        self.sock.sendall("\r\n".join([*lines, "\r\n"]).encode("latin-1") + body)

    def head(self) -> tuple[int, dict[str, str]]:
        status = int(self.stream.readline().split()[1])
        headers = {}
        while line := self.stream.readline().decode("latin-1").rstrip("\r\n"):
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return status, headers

    def chunk(self) -> bytes:
        """The next chunk; b"" is the last one. Raises EOFError if the connection ends."""
        line = self.stream.readline()
        if not line:
            raise EOFError
        data = self.stream.read(int(line, 16))
        if self.stream.read(2) != b"\r\n":
            raise EOFError
        return data

    def chunks(self) -> tuple[bytes, bool]:
        """All further chunks, and whether the last one came."""
        pieces = []
        try:
            while piece := self.chunk():
                pieces.append(piece)
        except (EOFError, ConnectionError):
            return b"".join(pieces), False
        return b"".join(pieces), True

    def body(self, headers: dict[str, str]) -> tuple[bytes, bool]:
        """The body, read by its framing, and whether it is whole."""
        if "chunked" in headers.get("transfer-encoding", ""):
            return self.chunks()
        size = int(headers["content-length"])
        data = self.stream.read(size)
        return data, len(data) == size

    def close(self) -> None:
        self.stream.close()
        self.sock.close()
