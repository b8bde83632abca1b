"""Clients that each read a stream in a thread, and the records of interceptions."""

from __future__ import annotations

import threading
import urllib.error
from typing import Any

from tests.support.dialogue import ASK, BLOCK, DELTA, END, MESSAGES, START
from tests.support.server import TIMEOUT_SECONDS, Server
from tests.support.upstream import LAST_CHUNK, Upstream, chunk, stream_head


def get_status(server: Server, path: str) -> int:
    """The status of a GET; 0 if no response came."""
    try:
        server.get(path)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0
    return 200


class StreamReader(threading.Thread):
    """A client that requests a stream and reads it to its end."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.client = server.connect()
        self.client.send("POST", MESSAGES, ASK)
        self.id = self.client.head()[1]["x-aibridge-interception-id"]
        self.first = self.client.chunk()
        self.rest, self.is_complete = b"", False
        self.start()

    def run(self) -> None:
        self.rest, self.is_complete = self.client.chunks()


def open_streams(server: Server, upstream: Upstream, count: int, go: threading.Event) -> list[StreamReader]:
    """Starts streams whose first chunk is read; they end when `go` is set."""
    steps = [stream_head(), chunk(START + BLOCK), go, chunk(DELTA), chunk(END), LAST_CHUNK]
    upstream.handler = lambda received: steps
    return [StreamReader(server) for _ in range(count)]


def check_complete(streams: list[StreamReader]) -> None:
    """Waits until all streams have ended; each is complete."""
    for stream in streams:
        stream.join(TIMEOUT_SECONDS)
    expected = (START + BLOCK + DELTA + END, True)
    assert [(stream.first + stream.rest, stream.is_complete) for stream in streams] == [expected] * len(
        streams
    )


def records_by_id(server: Server) -> dict[str, Any]:
    results = server.get("/interceptions?limit=1000")["results"]
    records = {record["id"]: record for record in results}
    assert len(records) == len(results)
    return records


def have_ended(server: Server, ids: set[str]) -> bool:
    records = records_by_id(server)
    return ids <= set(records) and all(records[id]["ended_at"] for id in ids)
