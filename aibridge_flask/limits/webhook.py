"""Sends notices to the webhook: a thread of each worker, of which one does it. What fails is sent again."""

from __future__ import annotations

import hmac
import logging
from _queue import Empty, SimpleQueue  # the C type: gevent patches only the module `queue`
from collections.abc import Callable
from datetime import timedelta
from time import time

import requests
import sqlalchemy as sa
from msgspec.json import encode
from sqlalchemy import Connection, Engine, RowMapping
from sqlalchemy.exc import SQLAlchemyError

from ..records.database_errors import describe
from ..records.events import now
from ..records.leases import Lease, LeaseLost
from ..records.sum_tables import limit_notices
from ..waiting import start_thread

SIGNATURE = "X-AIBridge-Signature"
_log = logging.getLogger("aibridge.limits")
_INTERVAL = 30.0  # for what other workers have left
_RETRY_SECONDS = 5.0
_TIMEOUT = 10.0  # seconds, for the connection and for the answer
_MAX_AGE = timedelta(days=1)  # then it is given up
_SLICE = 50
_n = limit_notices.c


class Webhook:
    """Of one process."""

    def __init__(self, engine: Engine, url: str, key: Callable[[], str]) -> None:
        self._engine, self._url, self._key = engine, url, key
        self._lease = Lease("limit notices")
        self._wakeups: SimpleQueue[bool] = SimpleQueue()
        self._join: Callable[[float], bool] = start_thread(self._run)

    def close(self, seconds: float) -> None:
        self._wakeups.put(True)
        self._join(seconds)

    def wake(self) -> None:
        """There are new notices. For any thread."""
        self._wakeups.put(False)

    def _run(self) -> None:
        seconds = _RETRY_SECONDS
        while not self._is_stopped_within(seconds):
            try:
                seconds = _INTERVAL if self._work() else _RETRY_SECONDS
            except (SQLAlchemyError, LeaseLost) as error:
                _log.debug("no notices are sent: %s", describe(error))
            except Exception:  # noqa: BLE001 - the thread survives any error
                _log.exception("sending notices has failed")

    def _is_stopped_within(self, seconds: float) -> bool:
        """Waits for a wakeup. One by `close` ends the thread."""
        try:
            return self._wakeups.get(timeout=seconds)
        except Empty:
            return False

    def _work(self) -> bool:
        """Sends what is unsent, the oldest first; returns false if the webhook does not take it."""
        unsent = sa.and_(_n.sent_at.is_(None), _n.made_at > now() - _MAX_AGE)
        query = sa.select(limit_notices).where(unsent).order_by(_n.made_at).limit(_SLICE)
        with self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        if not rows or not self._write(self._lease.take):
            return True
        with requests.Session() as session:
            for row in rows:
                if not self._send(session, row):
                    return False
                self._write(lambda connection, row=row: _set_sent(connection, row))  # type: ignore[misc]
        return True

    def _send(self, session: requests.Session, row: RowMapping) -> bool:
        body = encode({**row["facts"], "made_at": row["made_at"].isoformat()})
        headers = {"Content-Type": "application/json", SIGNATURE: signature(self._key(), body, int(time()))}
        try:
            answer = session.post(
                self._url, data=body, headers=headers, timeout=_TIMEOUT, allow_redirects=False
            )
        except requests.RequestException as error:
            _log.warning("the webhook of limits cannot be reached: %s", type(error).__name__)
            return False
        if not answer.ok:
            _log.warning("the webhook of limits answers %d", answer.status_code)
        return answer.ok

    def _write(self, work: Callable[[Connection], object]) -> object:
        with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            return work(connection)


def signature(key: str, body: bytes, at: int) -> str:
    """Returns the header's value: the time in seconds, and the HMAC-SHA256 of the time, a dot and the body.

    >>> signature("k", b"{}", 5)[:13]
    't=5,v1=d06625'
    """
    return f"t={at},v1={hmac.digest(key.encode(), b'%d.' % at + body, 'sha256').hex()}"


def _set_sent(connection: Connection, row: RowMapping) -> None:
    keys = [limit_notices.c[name] == row[name] for name in ("account", "start", "percent")]
    connection.execute(sa.update(limit_notices).where(*keys).values(sent_at=now()))
