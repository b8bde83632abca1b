"""Two bridges behind nginx, restarted one after the other under load."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

from tests.conftest import Start
from tests.support.dialogue import ASK, ASK_BLOCKING, BLOCK, DELTA, END, MESSAGES, START
from tests.support.nginx import ANN, Nginx, deployment_config
from tests.support.postgres import Postgres
from tests.support.server import TIMEOUT_SECONDS, check_log, wait_until
from tests.support.upstream import (
    LAST_CHUNK,
    ReceivedRequest,
    Step,
    Upstream,
    chunk,
    http_response,
    stream_head,
)

CLIENTS, BETWEEN = 6, 30
ANSWER, STREAM = b'{"content":[]}', START + BLOCK + DELTA + END


def answer(received: ReceivedRequest) -> list[Step]:
    if received.body == ASK_BLOCKING:
        return [lambda sock: time.sleep(0.05), http_response(200, ANSWER)]
    return [stream_head(), chunk(START + BLOCK), lambda sock: time.sleep(0.2), chunk(DELTA + END), LAST_CHUNK]


class Load(threading.Thread):
    """A client that asks again and again, on a connection that it keeps. `wrong` holds what it did not expect."""

    def __init__(self, nginx: Nginx, is_over: threading.Event) -> None:
        super().__init__(daemon=True)
        self._nginx, self._is_over = nginx, is_over
        self.ids: set[str] = set()
        self.wrong: list[object] = []
        self.start()

    def run(self) -> None:
        client = self._nginx.connect()
        while not self._is_over.is_set():
            body, expected = (ASK, STREAM) if len(self.ids) % 2 else (ASK_BLOCKING, ANSWER)
            try:
                client.send("POST", MESSAGES, body, **ANN)
                status, headers = client.head()
                found = status, client.body(headers)
            except (OSError, IndexError) as error:
                found = error
            if found != (200, (expected, True)):
                self.wrong.append(found)
                client = self._nginx.connect()
                continue
            self.ids.add(headers["x-aibridge-interception-id"])


def test_nobody_notices(start: Start, upstream: Upstream, postgres: Postgres, tmp_path: Path) -> None:
    upstream.handler = answer
    auth = {"mode": "header", "trusted_proxies": ["127.0.0.1/32"], "admin_actors": ["root"]}
    settings = {"database_url": postgres.new_url(), "auth": auth, "drain_delay": 0.5}
    bridges = [start(**settings) for _ in range(2)]
    for server in bridges:
        server.headers = {"X-Remote-User": "root"}
        server.wait_ready("/readyz")
    nginx = Nginx(tmp_path, deployment_config(tmp_path, *(server.port for server in bridges)))
    is_over = threading.Event()
    load = [Load(nginx, is_over) for _ in range(CLIENTS)]

    def wait_for_more() -> None:
        before = sum(len(each.ids) for each in load)
        wait_until(lambda: sum(len(each.ids) for each in load) >= before + BETWEEN)

    for server in bridges:
        wait_for_more()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(TIMEOUT_SECONDS) == 0
        wait_for_more()
        server.start().wait_ready("/readyz")
    wait_for_more()
    is_over.set()
    for each in load:
        each.join(TIMEOUT_SECONDS)
    assert [each.wrong for each in load if each.wrong] == []
    for server in bridges:
        server.wait_until_applied()
        check_log(server.log.read_text())
    totals = bridges[0].get("/usage")["totals"]
    assert (totals["requests"], totals["errors"]) == (sum(len(each.ids) for each in load), 0)
    nginx.stop()
