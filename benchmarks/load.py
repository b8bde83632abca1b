"""The clients: raw connections in one process, a bounded number of requests.

`python -m benchmarks.load CASE JSON` prints what was measured as JSON; the cases are the
functions of `CASES`, the JSON holds their arguments. `server` is the process whose CPU time and
memory are read meanwhile, 0 for none.
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

from .processes import cpu_seconds, family, memory

PATIENCE = 60.0
_STAMP = re.compile(rb"t=(\d+);")
_SETTLE = 0.5


def request(path: str, bench: str) -> bytes:
    """What an SDK sends, with 1.5 KB of body."""
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
    """One keep-alive connection. `delays` holds, in ns, how old each stamped event was."""

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

    def ask(self, data: bytes) -> asyncio.Future[None]:
        """Sends a request; the future is done with the answer's last byte."""
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


async def closed(port: int, path: str, bench: str, server: int, count: int, clients: int) -> dict[str, Any]:
    """`clients` connections, each with one request after the other, `count` in all."""
    data, pids = request(path, bench), family(server)
    left, waits, sizes = iter(range(count)), [], set()
    open_clients = [await connect(port) for _ in range(clients)]

    async def work(client: Client) -> None:
        for _ in left:
            begun = time.monotonic_ns()
            await client.ask(data)
            waits.append(client.first - begun)
            sizes.add(client.size)

    used, begun = cpu_seconds(pids), time.monotonic()
    await asyncio.wait_for(asyncio.gather(*map(work, open_clients)), PATIENCE)
    seconds = time.monotonic() - begun
    await asyncio.sleep(_SETTLE)  # what the server writes after the answers counts too
    used = cpu_seconds(pids) - used
    for client in open_clients:
        client.transport.close()
    return {"requests": count, "seconds": seconds, "cpu": used, "first": waits, "sizes": sorted(sizes)}


async def paced(
    port: int, path: str, server: int, streams: int, pause: int, ramp: float, window: float
) -> dict[str, Any]:
    """`streams` at once, begun over `ramp` seconds, then watched for `window` seconds."""
    pids, events = family(server), round((ramp + window + 2 * _SETTLE) * 1000 / pause)
    empty, clients, ends = memory(pids), [], []
    for number in range(streams):
        client = await connect(port)
        clients.append(client)
        ends.append(client.ask(request(path, f"paced {events} {pause} all{number}")))
        await asyncio.sleep(ramp / streams)
    await asyncio.sleep(_SETTLE)
    used, begun, full = cpu_seconds(pids), [len(client.delays) for client in clients], memory(pids)
    await asyncio.sleep(window)
    used, grown = cpu_seconds(pids) - used, memory(pids) - full
    delays = [delay for client, skip in zip(clients, begun, strict=True) for delay in client.delays[skip:]]
    held = memory(pids) - empty
    await asyncio.wait_for(asyncio.gather(*ends), PATIENCE + window)
    lost = sum(events - len(client.delays) for client in clients)
    for client in clients:
        client.transport.close()
    return {"requests": streams, "delays": delays, "cpu": used, "memory": held, "grown": grown, "lost": lost}


async def leave(port: int, path: str, upstream: int, pause: int, count: int) -> dict[str, Any]:
    """Clients that leave in the silence after an event; `gone` is how long, in ns, until the
    upstream's connection was closed."""
    gone = []
    for number in range(count):
        id = f"leave{time.monotonic_ns()}x{number}"
        client = await connect(port)
        client.ask(request(path, f"paced 100 {pause} {id}")).add_done_callback(lambda end: end.exception())
        await asyncio.wait_for(client.stamped.wait(), PATIENCE)
        await asyncio.sleep(pause / 4000)
        left = time.monotonic_ns()
        client.transport.abort()
        gone.append(await _heard(upstream, id) - left)
    return {"requests": count, "gone": gone}


async def _heard(upstream: int, id: str) -> int:
    for _ in range(500):
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream)
        writer.write(f"GET /left/{id} HTTP/1.1\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        when = int(await reader.read(100))
        writer.close()
        if when:
            return when
        await asyncio.sleep(0.02)
    raise TimeoutError("the upstream's connection was never closed")


CASES: dict[str, Callable[..., Coroutine[Any, Any, dict[str, Any]]]] = {
    "closed": closed,
    "paced": paced,
    "leave": leave,
}

if __name__ == "__main__":
    gc.disable()  # a collection in the middle of a run would count as the server's delay
    print(json.dumps(asyncio.run(CASES[sys.argv[1]](**json.loads(sys.argv[2])))))
