"""The targets: the bridge, a naive proxy, nginx, and the upstream itself."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .processes import with_children

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_SECONDS = 30.0
_PATH = "/v1/messages"
_BRIDGE = "wsgi:app"
_PREFIX = "/api/v2/aibridge/anthropic"
_GUNICORN = (sys.executable, "-m", "gunicorn")
_GEVENT_OPTIONS = ("--workers=1", "--worker-class=gevent", "--worker-connections=2000", "--keep-alive=75")
_NGINX_CONFIG = """
daemon off; {user} worker_processes 1; pid {folder}/pid; error_log stderr warn;
events {{ worker_connections 4000; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000;
  upstream provider {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://provider; proxy_http_version 1.1; proxy_buffering off;
      proxy_set_header Connection "";
    }}
  }}
}}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """Processes that are started inside run on this core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Server:
    """A listening process and its log. `worker` is the id of the child that serves requests.

    `is_recorded`: its database holds a record of each request.
    """

    def __init__(
        self, command: list[str], folder: Path, port: int, core: int, path: str, **environ: str
    ) -> None:
        self.port, self.path, self.folder = port, path, folder
        self.is_recorded = command[-1] == _BRIDGE
        self.log = folder / "log"
        self._started_at = time.monotonic()
        inherited = {key: value for key, value in os.environ.items() if not key.endswith("_API_KEY")}
        with self.log.open("wb") as log, on_core(core):
            self._process = subprocess.Popen(
                command, cwd=ROOT, env={**inherited, **environ}, stdout=log, stderr=log
            )
        self._wait_ready()

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(self.log.read_text()) from None
                time.sleep(0.01)

    def first_answer(self) -> float:
        """Seconds from the start to a response of any status: the cold start, if this is the first request."""
        self.status(self.path)
        return time.monotonic() - self._started_at

    def status(self, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            return response.status

    @property
    def worker(self) -> int:
        """Valid once a request was served: the master listens before it has a child."""
        return with_children(self._process.pid)[-1]

    def stop(self) -> list[str]:
        """Stops it gracefully; returns the lines of its log that report problems."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(TIMEOUT_SECONDS)
        lines = self.log.read_text().splitlines()
        words = ("error", "traceback", "critical", "exception", "warning")
        candidates = [line for line in lines if "[INFO]" not in line]
        return [line for line in candidates if any(word in line.lower() for word in words)]

    def records(self) -> tuple[int, int]:
        """The number of interceptions in the bridge's database, and how many of them have ended."""
        with contextlib.closing(sqlite3.connect(self.folder / "records.db")) as database:
            row = database.execute("SELECT count(*), count(ended_at) FROM interceptions").fetchone()
        return int(row[0]), int(row[1])


def upstream_server(folder: Path, core: int) -> Server:
    """The scripted upstream."""
    port = free_port()
    return Server([sys.executable, "-m", "benchmarks.upstream", str(port)], folder, port, core, _PATH)


def bridge(folder: Path, upstream: int, core: int, settings: str = "", app: str = _BRIDGE) -> Server:
    """The bridge as `gunicorn.conf.py` starts it, with records in SQLite; `settings` is TOML text."""
    port, config = free_port(), folder / "aibridge.toml"
    config.write_text(
        f'database_url = "sqlite:///{folder}/records.db"\n'
        "[[providers]]\n"
        f'type = "anthropic"\nname = "anthropic"\nbase_url = "http://127.0.0.1:{upstream}"\n'
        f'keys = [{{ value = "sk-ant-bench-0123456789abcdef" }}]\n{settings}'
    )
    command = [*_GUNICORN, "-c", str(ROOT / "gunicorn.conf.py"), app]
    environ = {"AIBRIDGE_CONFIG": str(config), "AIBRIDGE_BIND": f"127.0.0.1:{port}", "AIBRIDGE_WORKERS": "1"}
    return Server(command, folder, port, core, _PREFIX + _PATH, **environ)


def tools(folder: Path, upstream: int, core: int) -> Server:
    """The bridge with fifty tools of an MCP server."""
    server = bridge(
        folder, upstream, core, f'[[mcp_servers]]\nname="bench"\nurl="http://127.0.0.1:{upstream}/mcp"\n'
    )
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while server.status("/api/v2/aibridge/readyz") != 200:
        if time.monotonic() > deadline:
            raise RuntimeError(server.log.read_text())
        time.sleep(0.05)
    return server


def unrecorded(folder: Path, upstream: int, core: int) -> Server:
    """The bridge without records."""
    return bridge(folder, upstream, core, app="benchmarks.unrecorded:app")


def empty(folder: Path, upstream: int, core: int) -> Server:
    """A view that does nothing, under the same kind of worker."""
    return naive(folder, upstream, core, "/empty")


def naive(folder: Path, upstream: int, core: int, path: str = _PATH) -> Server:
    """`naive.py` under the same kind of worker."""
    port = free_port()
    command = [
        *_GUNICORN,
        *_GEVENT_OPTIONS,
        "--no-control-socket",
        f"--bind=127.0.0.1:{port}",
        "benchmarks.naive:app",
    ]
    environ = {"NAIVE_UPSTREAM": f"http://127.0.0.1:{upstream}"}
    return Server(command, folder, port, core, path, **environ)


def nginx(folder: Path, upstream: int, core: int) -> Server:
    """nginx as a plain proxy, for comparison."""
    port, config = free_port(), folder / "nginx.conf"
    user = "user root;" if os.getuid() == 0 else ""
    config.write_text(_NGINX_CONFIG.format(folder=folder, port=port, upstream=upstream, user=user))
    command = [shutil.which("nginx") or "nginx", "-p", str(folder), "-c", str(config)]
    return Server(command, folder, port, core, _PATH)


def describe_machine() -> str:
    """The machine as JSON, for the head of the report."""
    kernel = os.uname()
    version = ".".join(map(str, sys.version_info[:3]))
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        kernel.machine,
    )
    return json.dumps({"cpu": model, "cores": os.cpu_count(), "kernel": kernel.release, "python": version})
