"""Measures the time to the first byte while a dead worker's log is applied, against the time without a backlog.

`python -m benchmarks.catch_up [--requests 40000] [--database sqlite]`
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from aibridge_flask.records import backlog
from tests.support.postgres import Postgres
from tests.support.server import ROOT, Client, Server
from tests.support.upstream import Upstream, http_response

_BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
_RESPONSE = b'{"id":"msg_1","model":"m","usage":{"input_tokens":3,"output_tokens":7}}'
_PATH = "/anthropic/v1/messages"
_SECONDS = 8.0
_DEAD_WORKER = """
import os, pathlib, sys
from aibridge_flask.model import Usage, new_id
from aibridge_flask.records import log_folder
from aibridge_flask.records.events import Ended, Prompt, Started, TokenUsage, ToolUsage, now
from aibridge_flask.records.log import RecordLog
import sqlalchemy as sa
log = RecordLog(log_folder.prepare(sys.argv[1], sa.make_url(sys.argv[2])), new_id())
log_folder.set_database(log.path, log_folder.url_identity(sa.make_url(sys.argv[2])))
for number in range(int(sys.argv[3])):
    id = new_id()
    log.append((Started(id, "ann", now(), model="m"), Prompt(id, "hello", now())))
    log.append((TokenUsage(id, 0, "r", "m", Usage(3, 7), now()),))
    log.append((ToolUsage(id, 0, 0, "r", f"call_{number}", "", "Read", "{}", now()),))
    log.append((Ended(id, now(), status_code=200),))
os._exit(9)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=40_000)
    parser.add_argument("--database", choices=("postgresql", "sqlite"), default="postgresql")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="catch-up", ignore_cleanup_errors=True) as folder:
        _measure(options, Path(folder))


def _measure(options: argparse.Namespace, folder: Path) -> None:
    postgres = Postgres(folder) if options.database == "postgresql" else None
    url = postgres.new_url() if postgres else f"sqlite:///{folder}/records.db"
    upstream = Upstream()
    upstream.handler = lambda received: [http_response(200, _RESPONSE)]
    provider = {"type": "anthropic", "base_url": upstream.url, "keys": [{"value": "sk-1"}]}
    server = Server(folder, {"database_url": url, "providers": [provider], "drain_delay": 0})
    try:
        server.wait_ready("/readyz")
        before = _times(server)
        log_folder = str(server.settings["spool_dir"])
        command = [sys.executable, "-c", _DEAD_WORKER, log_folder, url, str(options.requests)]
        subprocess.run(command, cwd=ROOT, check=False)
        begun = time.monotonic()
        while (start := backlog.measure(Path(log_folder)).bytes) and time.monotonic() - begun < 60:
            if backlog.measure(Path(log_folder)).bytes < start:
                break  # it is being taken over
            time.sleep(0.1)
        during = _times(server)
        _report(before, during)
        while backlog.measure(Path(log_folder)).bytes:
            time.sleep(0.1)
        print(f"caught up after {time.monotonic() - begun:.0f} s")
    finally:
        server.process.kill()
        server.process.wait()
        upstream.close()
        if postgres:
            postgres.stop()


def _times(server: Server) -> list[float]:
    """Seconds to the first byte of one request after the other."""
    client, times = Client(server.port), []
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        begun = time.perf_counter()
        client.send("POST", _PATH, _BODY)
        _, headers = client.head()
        times.append(time.perf_counter() - begun)
        client.body(headers)
    client.close()
    return times


def _report(before: list[float], during: list[float]) -> None:
    for name, times in (("before", before), ("while catching up", during)):
        p50, p99 = statistics.median(times) * 1000, statistics.quantiles(times, n=100)[98] * 1000
        print(f"{name}: {len(times)} requests, p50 {p50:.2f} ms, p99 {p99:.2f} ms")


if __name__ == "__main__":
    main()
