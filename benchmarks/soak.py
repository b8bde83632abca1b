"""Mixed traffic for some minutes: does a worker's memory grow, does it leave files open, is all recorded?

`python -m benchmarks.soak --minutes 10` prints a line every ten seconds, and at its end a table by the minute. Exit 1
if a request has no record that has ended, or if the server's log has an error.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from . import servers
from .load import build_request
from .processes import memory

_EVERY_SECONDS = 10
_PAUSE_SECONDS = 0.05  # between the requests of a client
_CATCH_UP_SECONDS = 60.0
_UI = "/api/v2/aibridge"
_PAGES = (
    "/interceptions?limit=100",
    "/sessions",
    "/usage?group_by=model,client",
    "/ui/",
    "/ui/spend",
    "/live",
)


class Sample(NamedTuple):
    """`requests` are those that clients have sent so far."""

    seconds: int
    requests: int
    rss_mb: float
    files: int
    threads: int


class Traffic:
    """Clients that ask until they are stopped, some of them impatient. `ids` are those of their interceptions."""

    def __init__(self, port: int, path: str) -> None:
        self._port, self._path = port, path
        self._is_over = threading.Event()
        self.ids: list[str] = []
        self.failures: list[str] = []
        kinds: tuple[tuple[int, Callable[[], None]], ...] = (
            (3, lambda: self._ask("json")),
            (2, lambda: self._ask("burst")),
            (12, lambda: self._ask(f"paced 50 100 {time.monotonic_ns()}")),
            (2, self._leave),
            (1, self._read),
        )
        self._threads = [
            threading.Thread(target=self._repeat, args=(act,)) for count, act in kinds for _ in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Waits for what has begun."""
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, act: Callable[[], None]) -> None:
        while not self._is_over.wait(_PAUSE_SECONDS):
            try:
                act()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))

    @contextlib.contextmanager
    def _answer(self, bench: str) -> Iterator[http.client.HTTPResponse]:
        body = build_request(self._path, bench).partition(b"\r\n\r\n")[2]
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=servers.TIMEOUT_SECONDS)
        with contextlib.closing(connection):
            connection.request("POST", self._path, body, {"X-Bench": bench})
            response = connection.getresponse()
            self.ids.append(response.headers["X-AIBridge-Interception-Id"])
            yield response

    def _ask(self, bench: str) -> None:
        with self._answer(bench) as response:
            if response.status != 200 or not response.read():
                self.failures.append(f"{bench.split(maxsplit=1)[0]}: {response.status}")

    def _leave(self) -> None:
        with self._answer(f"paced 50 100 {time.monotonic_ns()}") as response:
            response.read(1000)

    def _read(self) -> None:
        for page in _PAGES:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=servers.TIMEOUT_SECONDS)
            with contextlib.closing(connection):
                connection.request("GET", _UI + page)
                response = connection.getresponse()
                response.read()
                if response.status != 200:
                    self.failures.append(f"{page}: {response.status}")
            time.sleep(_PAUSE_SECONDS)


def _sample(worker: int, seconds: int, traffic: Traffic) -> Sample:
    folder = Path(f"/proc/{worker}")
    files, threads = (len(os.listdir(folder / name)) for name in ("fd", "task"))  # noqa: PTH208
    return Sample(seconds, len(traffic.ids), memory([worker]) / 1e6, files, threads)


def _measure(server: servers.Server, traffic: Traffic, minutes: float) -> Iterator[Sample]:
    begin = time.monotonic()
    for seconds in range(_EVERY_SECONDS, int(minutes * 60) + 1, _EVERY_SECONDS):
        time.sleep(max(begin + seconds - time.monotonic(), 0))
        sample = _sample(server.worker, seconds, traffic)
        print(
            f"{seconds:5} s  {sample.requests:7} requests  {sample.rss_mb:6.1f} MB  {sample.files:4} files",
            flush=True,
        )
        yield sample


def _table(samples: list[Sample]) -> str:
    rows = ["| minute | requests | RSS, MB | open files | threads |", "|---|---|---|---|---|"]
    minutes = [sample for sample in samples if sample.seconds % 60 == 0]
    rows += [
        f"| {s.seconds // 60} | {s.requests} | {s.rss_mb:.1f} | {s.files} | {s.threads} |" for s in minutes
    ]
    return "\n".join(rows)


def _unrecorded(server: servers.Server, count: int) -> str:
    """Returns what is missing after a while; "" if nothing is."""
    deadline = time.monotonic() + _CATCH_UP_SECONDS
    while (found := server.records()) != (count, count) and time.monotonic() < deadline:
        time.sleep(0.5)
    return "" if found == (count, count) else f"{count} requests, {found[0]} records, {found[1]} have ended"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    minutes = parser.parse_args().minutes
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name, part) for part in ("upstream", "bridge")]
        for folder in folders:
            folder.mkdir()
        upstream = servers.upstream_server(folders[0], cores[0])
        server = servers.bridge(folders[1], upstream.port, cores[-1])
        server.first_answer()
        before = server.records()[0]
        traffic = Traffic(server.port, server.path)
        try:
            samples = [*_measure(server, traffic, minutes)]
        finally:
            traffic.stop()
        trouble = [*traffic.failures, *filter(None, [_unrecorded(server, before + len(traffic.ids))])]
        trouble += server.stop()
        upstream.stop()
    print(f"\n{servers.describe_machine()}\n\n{_table(samples)}\n")
    print("\n".join(trouble) or f"All {len(traffic.ids)} requests are recorded.")
    sys.exit(bool(trouble))


if __name__ == "__main__":
    main()
