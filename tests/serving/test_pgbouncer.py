"""Behind PgBouncer in transaction mode: it refuses start-up options and server-side prepared statements."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Start
from tests.support.dialogue import ASK_BLOCKING, MESSAGES
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import Postgres
from tests.support.upstream import Upstream, http_response


def test_the_tables_are_made_and_records_written_behind_pgbouncer(
    start: Start, upstream: Upstream, postgres: Postgres, tmp_path: Path
) -> None:
    upstream.handler = lambda received: [http_response(200, b'{"id":"msg_1","usage":{"input_tokens":3}}')]
    bouncer = PgBouncer(tmp_path, postgres.new_url())
    try:
        server = start("--workers=2", database_url=bouncer.url)
        ids = [server.post(MESSAGES, ASK_BLOCKING)[3] for _ in range(50)]
        records = [server.record(id) for id in ids]
        assert [record["token_usages"][0]["input_tokens"] for record in records] == [3] * len(ids)
        server.stop_cleanly()
    finally:
        bouncer.stop()
