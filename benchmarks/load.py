"""The clients: raw connections in one process, a bounded number of requests.

`python -m benchmarks.load CASE JSON` prints the measurements as JSON. The cases are the
functions of `CASES`; the JSON argument holds their arguments. `server` is the id of the process whose
CPU time and memory are measured, 0 for none.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import httptools

from .processes import cpu_seconds, memory, with_children

TIMEOUT_SECONDS = 60.0
_STAMP = re.compile(rb"t=(\d+);")
_SETTLE_SECONDS = 0.5


def build_request(path: str, bench: str) -> bytes:
    """A request as an SDK sends it, with a body of 1.5 KB."""
    prompt = "Tell me, in a few words and with a short example, what this function does. " * 16
    body = json.dumps(
        {
            "model": "claude-sonnet-4-5-20250929",
            "max_tokens": 1024,
            "stream": bench != "json",
            "metadata": {"user_id": "user_0123456789_session_9f0c5c1e-7f0e-4b7e-9f5d-0d6a3a4c1b2d"},
            "system": "You are a careful programmer.",
            "messages": [{"role": "user", "content": prompt}],
        }
    ).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n"
        "Accept-Encoding: gzip, deflate\r\nUser-Agent: claude-cli/2.0.1 (external, cli)\r\n"
        "Anthropic-Version: 2023-06-01\r\nX-Stainless-Lang: python\r\nX-Stainless-Retry-Count: 0\r\n"
        f"X-Bench: {bench}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Client(asyncio.Protocol):
    """A keep-alive connection. `delays` holds the age of each stamped event on arrival, in ns.

    `first` is when the first byte of the body arrived (monotonic clock, in ns), `size` the bytes of the body.
    """

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.delays: list[int] = []
        self.stamped = asyncio.Event()
        self.first = 0
        self.size = 0
        self._done: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def send(self, data: bytes) -> asyncio.Future[None]:
        """Sends a request; the future completes with the last byte of the response."""
        self._parser = httptools.HttpResponseParser(self)
        self.first = self.size = 0
        self._done = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        return self._done

    def data_received(self, data: bytes) -> None:
        self._now = time.monotonic_ns()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            self._fail(error.__context__ or error)

    def on_body(self, body: bytes) -> None:
        self.first = self.first or self._now
        self.size += len(body)
        if stamps := _STAMP.findall(body):
            self.delays += [self._now - int(stamp) for stamp in stamps]
            self.stamped.set()

    def on_message_complete(self) -> None:
        if (status := self._parser.get_status_code()) != 200:
            raise RuntimeError(f"status {status}")
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionResetError("the server closed the connection"))

    def _fail(self, error: BaseException) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)


async def connect(port: int) -> Client:
    loop = asyncio.get_running_loop()
    return (await loop.create_connection(Client, "127.0.0.1", port))[1]


async def measure_closed_loop(
    port: int, path: str, bench: str, server: int, count: int, clients: int
) -> dict[str, Any]:
    """Sends `count` requests over `clients` connections, one at a time on each."""
    data, pids = build_request(path, bench), with_children(server)
    remaining, waits, sizes = iter(range(count)), [], set()
    open_clients = [await connect(port) for _ in range(clients)]

    async def work(client: Client) -> None:
        for _ in remaining:
            sent_at = time.monotonic_ns()
            await client.send(data)
            waits.append(client.first - sent_at)
            sizes.add(client.size)

    cpu, started_at = cpu_seconds(pids), time.monotonic()
    await asyncio.wait_for(asyncio.gather(*map(work, open_clients)), TIMEOUT_SECONDS)
    seconds = time.monotonic() - started_at
    await asyncio.sleep(_SETTLE_SECONDS)  # work of the server after its responses counts too
    cpu = cpu_seconds(pids) - cpu
    for client in open_clients:
        client.transport.close()
    return {"requests": count, "seconds": seconds, "cpu": cpu, "first": waits, "sizes": sorted(sizes)}


async def measure_paced(
    port: int, path: str, server: int, streams: int, pause: int, ramp: float, window: float
) -> dict[str, Any]:
    """Opens `streams` streams over `ramp` seconds, then measures for `window` seconds.

    `pause`: ms between two events of a stream.
    """
    pids, events = with_children(server), round((ramp + window + 2 * _SETTLE_SECONDS) * 1000 / pause)
    idle_memory, clients, futures = memory(pids), [], []
    for number in range(streams):
        client = await connect(port)
        clients.append(client)
        futures.append(client.send(build_request(path, f"paced {events} {pause} all{number}")))
        await asyncio.sleep(ramp / streams)
    await asyncio.sleep(_SETTLE_SECONDS)
    cpu, skipped, loaded_memory = cpu_seconds(pids), [len(client.delays) for client in clients], memory(pids)
    await asyncio.sleep(window)
    cpu, growth = cpu_seconds(pids) - cpu, memory(pids) - loaded_memory
    delays = [delay for client, skip in zip(clients, skipped, strict=True) for delay in client.delays[skip:]]
    stream_memory = memory(pids) - idle_memory
    await asyncio.wait_for(asyncio.gather(*futures), TIMEOUT_SECONDS + window)
    lost = sum(events - len(client.delays) for client in clients)
    for client in clients:
        client.transport.close()
    return {
        "requests": streams,
        "delays": delays,
        "cpu": cpu,
        "memory": stream_memory,
        "grown": growth,
        "lost": lost,
    }


async def measure_disconnects(port: int, path: str, upstream: int, pause: int, count: int) -> dict[str, Any]:
    """Clients disconnect in the silence after an event.

    `gone` in the result: the ns from each disconnect until the upstream's connection was closed.
    """
    delays = []
    for number in range(count):
        id = f"leave{time.monotonic_ns()}x{number}"
        client = await connect(port)
        client.send(build_request(path, f"paced 100 {pause} {id}")).add_done_callback(
            lambda future: future.exception()
        )
        await asyncio.wait_for(client.stamped.wait(), TIMEOUT_SECONDS)
        await asyncio.sleep(pause / 4000)
        disconnected_at = time.monotonic_ns()
        client.transport.abort()
        delays.append(await _wait_closed(upstream, id) - disconnected_at)
    return {"requests": count, "gone": delays}


async def _wait_closed(upstream: int, id: str) -> int:
    """Waits until the upstream's connection of stream `id` is closed; returns when (monotonic clock, in ns)."""
    for _ in range(500):
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream)
        writer.write(f"GET /left/{id} HTTP/1.1\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        closed_at = int(await reader.read(100))
        writer.close()
        if closed_at:
            return closed_at
        await asyncio.sleep(0.02)
    raise TimeoutError("the upstream's connection was never closed")


CASES: dict[str, Callable[..., Coroutine[Any, Any, dict[str, Any]]]] = {
    "closed": measure_closed_loop,
    "paced": measure_paced,
    "leave": measure_disconnects,
}

if __name__ == "__main__":
    gc.disable()  # a garbage collection during a run would count as the server's delay
    print(json.dumps(asyncio.run(CASES[sys.argv[1]](**json.loads(sys.argv[2])))))
