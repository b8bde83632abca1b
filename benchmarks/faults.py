"""Injects faults under mixed traffic, and then accounts for every request.

`python -m benchmarks.faults --seed 1 --minutes 1 [--database sqlite]` runs two workers. Database, Redis, workers and
disk fail in random order. Exit 1 if any record differs from what the clients and the upstream saw: each request has
one row, which has ended, with the tokens that the upstream named.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from aibridge_flask.records import backlog, database, tables
from benchmarks.swallowing_proxy import SwallowingProxy
from tests.support.postgres import Postgres
from tests.support.redis import RedisServer
from tests.support.server import Client, Server
from tests.support.upstream import LAST_CHUNK, ReceivedRequest, Upstream, chunk, http_response, stream_head

_CLIENTS = 6
_CATCH_UP_SECONDS = 120.0  # without progress
_PATH = "/anthropic/v1/messages"


@dataclass(slots=True)
class Request:
    """What a client saw of one request. `number` is its count of input tokens, by which it is known."""

    number: int
    id: str = ""
    status: int = 0
    is_whole: bool = False


@dataclass(slots=True)
class Traffic:
    """Clients that ask until they are stopped."""

    port: int
    seed: int
    requests: list[Request] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, client_number: int) -> None:
        choice = random.Random(self.seed * 1000 + client_number)
        while not self.stop.is_set():
            with self.lock:
                request = Request(len(self.requests) + 1)
                self.requests.append(request)
            with contextlib.suppress(OSError, ValueError, IndexError, EOFError):
                self._ask(request, streaming=choice.random() < 0.5)

    def _ask(self, request: Request, streaming: bool) -> None:
        body = {
            "model": "m",
            "stream": streaming,
            "messages": [{"role": "user", "content": str(request.number)}],
        }
        client = Client(self.port)
        try:
            client.send("POST", _PATH, json.dumps(body).encode())
            request.status, headers = client.head()
            request.id = headers["x-aibridge-interception-id"]
            _, request.is_whole = client.body(headers)
        finally:
            client.close()


def respond(received: ReceivedRequest) -> list[Any]:
    """The upstream names the request's number as its input tokens."""
    asked = json.loads(received.body)
    number = int(asked["messages"][0]["content"])
    usage = {"input_tokens": number, "output_tokens": 1}
    message = {"id": f"msg_{number}", "type": "message", "model": "m", "content": [], "usage": usage}
    if not asked["stream"]:
        message["usage"] = {**usage, "output_tokens": output_tokens(number)}
        return [http_response(200, json.dumps(message).encode())]
    end = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": output_tokens(number)}}
    text = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}}
    events = [_event({"type": "message_start", "message": message}), *[_event(text)] * 5, _event(end)]
    pause = threading.Event()  # never set before the stream is over
    steps: list[Any] = [stream_head()]
    for event in [*events, _event({"type": "message_stop"})]:
        steps += [chunk(event), lambda sock: pause.wait(0.02) and None]
    return [*steps, LAST_CHUNK]


def output_tokens(number: int) -> int:
    return 10 + number % 97


def _event(data: dict[str, Any]) -> bytes:
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()


class Faults:
    """Each method is one fault that begins and ends."""

    def __init__(self, server: Server, redis: RedisServer, choice: random.Random) -> None:
        self.server, self.redis, self.choice = server, redis, choice

    def all(self) -> list[Callable[[], None]]:
        return [self.kill_worker, self.reload, self.redis_away, self.disk_full, self.interrupt_worker]

    def kill_worker(self) -> None:
        self._signal_worker(signal.SIGKILL)

    def interrupt_worker(self) -> None:
        self._signal_worker(signal.SIGINT)

    def reload(self) -> None:
        self.server.process.send_signal(signal.SIGHUP)
        self.wait(1, 3)

    def redis_away(self) -> None:
        self.redis.halt()
        self.wait(0.5, 2)
        self.redis.resume()

    def disk_full(self) -> None:
        """No file of a worker may grow."""
        workers = self.server.workers()
        for pid in workers:
            _limit_files(pid, 0)
        self.wait(0.5, 2)
        for pid in workers:
            _limit_files(pid, resource.RLIM_INFINITY)

    def wait(self, least: float, most: float) -> None:
        time.sleep(self.choice.uniform(least, most))

    def _signal_worker(self, number: signal.Signals) -> None:
        workers = self.server.workers()
        if workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.choice.choice(workers), number)
        self.wait(0.5, 2)


class PostgresFaults(Faults):
    def __init__(
        self,
        server: Server,
        redis: RedisServer,
        choice: random.Random,
        postgres: Postgres,
        url: str,
        proxy: SwallowingProxy,
    ) -> None:
        super().__init__(server, redis, choice)
        self.postgres, self.engine, self.proxy = postgres, database.connect(url), proxy

    def all(self) -> list[Callable[[], None]]:
        return [*super().all(), self.silent, self.swallowed, self.away, self.restored]

    def silent(self) -> None:
        with self.postgres.silent():
            self.wait(1, 8)

    def swallowed(self) -> None:
        with self.proxy.swallowing():
            self.wait(1, 8)

    def away(self) -> None:
        self.postgres.halt()
        self.wait(1, 4)
        self.postgres.resume()

    def restored(self) -> None:
        """All tables return to what they held a moment before."""
        names = [table.name for table in tables.metadata.sorted_tables]
        with self.engine.begin() as connection:
            connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            connection.execute(sa.text("DROP SCHEMA IF EXISTS backup CASCADE"))
            connection.execute(sa.text("CREATE SCHEMA backup"))
            for name in names:
                connection.execute(sa.text(f"CREATE TABLE backup.{name} AS TABLE public.{name}"))
        self.wait(0.5, 2)
        while not self._restore(names):
            self.wait(0.1, 0.2)

    def _restore(self, names: list[str]) -> bool:
        """Returns false if a worker's transaction and this one waited for each other."""
        try:
            with self.engine.begin() as connection:
                connection.execute(sa.text(f"TRUNCATE {', '.join(f'public.{name}' for name in names)}"))
                for name in names:
                    connection.execute(sa.text(f"INSERT INTO public.{name} SELECT * FROM backup.{name}"))
        except sa.exc.OperationalError:
            return False
        return True


class SqliteFaults(Faults):
    def __init__(self, server: Server, redis: RedisServer, choice: random.Random, path: Path) -> None:
        super().__init__(server, redis, choice)
        self.path = path

    def all(self) -> list[Callable[[], None]]:
        return [*super().all(), self.locked, self.restored]

    def locked(self) -> None:
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None, timeout=20)) as lock:
            lock.execute("BEGIN IMMEDIATE")
            self.wait(1, 8)

    def restored(self) -> None:
        """A backup takes the place of the file."""
        backup = self.path.with_name("backup.db")
        with (
            contextlib.closing(sqlite3.connect(self.path, timeout=20)) as source,
            contextlib.closing(sqlite3.connect(backup)) as copy,
        ):
            source.backup(copy)
        self.wait(0.5, 2)
        for leftover in (self.path, *self.path.parent.glob(f"{self.path.name}-[ws]*")):
            if leftover.is_file():
                leftover.unlink()
        backup.rename(self.path)


def _limit_files(pid: int, size: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


def account(url: str, requests: list[Request]) -> list[str]:
    """What differs between the records and what clients and upstream saw."""
    engine = database.connect(url)
    with engine.connect() as connection:
        rows = {row["id"]: row for row in connection.execute(sa.select(tables.interceptions)).mappings()}
        usages: dict[str, list[Any]] = {}
        for usage in connection.execute(sa.select(tables.token_usages)).mappings():
            usages.setdefault(usage["interception_id"], []).append(usage)
    differences = [f"{id} has not ended" for id, row in rows.items() if row["ended_at"] is None]
    differences += [f"{id} has {len(found)} token usages" for id, found in usages.items() if len(found) > 1]
    for request in requests:
        differences += _differences(request, rows.get(request.id), usages.get(request.id, [None])[0])
    return differences


def _differences(request: Request, row: Any, usage: Any) -> Iterator[str]:
    if request.status != 200 or not request.id:
        return  # refused, or cut before its head
    if row is None:
        yield f"{request} has no row"
    elif request.is_whole and row["error_type"]:
        yield f"{request} was whole, its record says {row['error_type']}"
    elif request.is_whole and usage is None:
        yield f"{request} has no tokens"
    if usage is not None:
        tokens = (usage["input_tokens"], usage["output_tokens"])
        expected = (request.number, output_tokens(request.number))
        is_begun = tokens == (request.number, 1) or _is_estimate(usage)
        if tokens != expected and (request.is_whole or not is_begun):
            yield f"{request} has the tokens {tokens} instead of {expected}"


def _is_estimate(usage: Any) -> bool:
    """Whether it stands for an answer that broke off before it told its tokens."""
    return not usage["model"] and not usage["output_tokens"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--database", choices=("postgresql", "sqlite"), default="postgresql")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults", ignore_cleanup_errors=True) as folder:
        sys.exit(_run(options, Path(folder)))


def _run(options: argparse.Namespace, folder: Path) -> int:
    choice, upstream = random.Random(options.seed), Upstream()
    upstream.handler = respond
    redis = RedisServer(folder)
    postgres = Postgres(folder) if options.database == "postgresql" else None
    url = postgres.new_url() if postgres else f"sqlite:///{folder}/records.db"
    proxy = SwallowingProxy(url) if postgres else None
    provider = {"type": "anthropic", "base_url": upstream.url, "keys": [{"value": "sk-1"}]}
    tree = {
        "database_url": proxy.url if proxy else url,
        "redis_url": redis.url,
        "providers": [provider],
        "drain_delay": 0,
    }
    server = Server(folder, tree, "--workers", "2", "--graceful-timeout", "5")
    try:
        server.wait_ready()
        faults = (
            PostgresFaults(server, redis, choice, postgres, url, proxy)
            if postgres and proxy
            else SqliteFaults(server, redis, choice, folder / "records.db")
        )
        return _exercise(options, server, faults, url, choice)
    finally:
        server.process.kill()
        server.process.wait()
        redis.halt()
        upstream.close()
        if postgres:
            postgres.stop()
        shutil.copy(server.log, Path(tempfile.gettempdir()) / "faults.log")


def _exercise(
    options: argparse.Namespace, server: Server, faults: Faults, url: str, choice: random.Random
) -> int:
    traffic = Traffic(server.port, options.seed)
    threads = [
        threading.Thread(target=traffic.run, args=(number,), daemon=True) for number in range(_CLIENTS)
    ]
    for thread in threads:
        thread.start()
    end, counts = time.monotonic() + options.minutes * 60, {}
    while time.monotonic() < end:
        fault = choice.choice(faults.all())
        counts[fault.__name__] = counts.get(fault.__name__, 0) + 1
        fault()
        faults.wait(0.2, 1.5)
    traffic.stop.set()
    for thread in threads:
        thread.join(20)
    differences = _settle(server, url, traffic.requests)
    whole = sum(request.is_whole and request.status == 200 for request in traffic.requests)
    print(f"faults: {counts}")
    print(f"requests: {len(traffic.requests)}, answered whole: {whole}, differences: {len(differences)}")
    print("\n".join(differences[:20]))
    if behind := backlog.measure(Path(str(server.settings["spool_dir"]))).bytes:
        print(f"not applied: {behind} bytes of records")
    return int(bool(differences))


def _settle(server: Server, url: str, requests: list[Request]) -> list[str]:
    """Waits until all logs are applied and dead workers are closed, while the database catches up; returns what
    differs then."""
    folder, least, end = Path(str(server.settings["spool_dir"])), sys.maxsize, 0.0
    while True:
        behind = backlog.measure(folder).bytes
        if behind < least:
            least, end = behind, time.monotonic() + _CATCH_UP_SECONDS
        with contextlib.suppress(sa.exc.SQLAlchemyError):
            differences = account(url, requests)
            if (not differences and not behind) or time.monotonic() > end:
                return differences
        time.sleep(0.5)


if __name__ == "__main__":
    main()
