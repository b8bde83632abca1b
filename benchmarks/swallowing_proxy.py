"""A proxy in front of PostgreSQL that can swallow all bytes, as a broken network path does."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import sqlalchemy as sa

_READ_BYTES = 1 << 16


class SwallowingProxy:
    """`url` is that of the database at `target_url`, which names a Unix socket's folder, through the proxy."""

    def __init__(self, target_url: str) -> None:
        target = sa.make_url(target_url)
        self._socket = next(Path(str(target.query["host"])).glob(".s.PGSQL.*[0-9]"))
        self._is_swallowing = False
        port: Future[int] = Future()
        threading.Thread(target=lambda: asyncio.run(self._serve(port)), daemon=True).start()
        through = target.set(host="127.0.0.1", port=port.result(), query={})
        self.url = through.render_as_string(hide_password=False)

    @contextlib.contextmanager
    def swallowing(self) -> Iterator[None]:
        """Inside nothing arrives on either side. Connections from before get nothing afterwards either."""
        self._is_swallowing = True
        try:
            yield
        finally:
            self._is_swallowing = False

    async def _serve(self, port: Future[int]) -> None:
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        port.set_result(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            database_reader, database_writer = await asyncio.open_unix_connection(str(self._socket))
            await asyncio.gather(self._pump(reader, database_writer), self._pump(database_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lost = False
        with contextlib.closing(writer):
            while data := await reader.read(_READ_BYTES):
                lost = lost or self._is_swallowing
                if not lost:
                    writer.write(data)
                    await writer.drain()
