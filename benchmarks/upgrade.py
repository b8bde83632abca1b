"""Measures how long the bridge takes to start on a large database of the version before.

`python -m benchmarks.upgrade [--rows 1000000] [--database sqlite]`
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import sqlalchemy as sa

from aibridge_flask.records import additions, database
from tests.support.postgres import Postgres
from tests.support.server import Client, Server
from tests.support.upstream import Upstream, http_response

_BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
_PATH = "/anthropic/v1/messages"
_INSERT = """INSERT INTO interceptions
    (id, initiator_id, provider, model, client, metadata, streaming, started_at, ended_at, worker_id)
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :rows)
    SELECT 'id-' || n, 'user-' || (n % 100), 'anthropic', 'm', 'Claude Code', '{}', :streaming,
    '2026-01-01 00:00:00', '2026-01-01 00:00:01', '' FROM numbers"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--database", choices=("postgresql", "sqlite"), default="sqlite")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="upgrade", ignore_cleanup_errors=True) as folder:
        postgres = Postgres(Path(folder)) if options.database == "postgresql" else None
        try:
            url = postgres.new_url() if postgres else f"sqlite:///{folder}/records.db"
            _fill(url, options.rows)
            _measure(url, Path(folder))
        finally:
            if postgres:
                postgres.stop()


def _fill(url: str, rows: int) -> None:
    engine = database.connect(url)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        database.upgrade(connection)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(sa.text(_INSERT), {"rows": rows, "streaming": False})


def _measure(url: str, folder: Path) -> None:
    upstream = Upstream()
    upstream.handler = lambda received: [http_response(200, b'{"id":"msg_1","model":"m"}')]
    provider = {"type": "anthropic", "base_url": upstream.url, "keys": [{"value": "sk-1"}]}
    started_at = time.monotonic()
    server = Server(folder, {"database_url": url, "providers": [provider], "drain_delay": 0})
    try:
        server.wait_ready("/readyz")
        client = Client(server.port)
        client.send("POST", _PATH, _BODY)
        status, _ = client.head()
        client.close()
        print(f"first response ({status}) after {time.monotonic() - started_at:.1f} s")
        while additions.missing(database.connect(url)):
            time.sleep(0.1)
        print(f"all indexes after {time.monotonic() - started_at:.1f} s")
        server.wait_until_applied()
        print(f"all records written after {time.monotonic() - started_at:.1f} s")
    finally:
        server.process.kill()
        server.process.wait()
        upstream.close()


if __name__ == "__main__":
    main()
