"""A real PgBouncer in front of PostgreSQL."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote

from tests.support.missing import missing
from tests.support.server import Client, free_port, wait_until

_CONFIGURATION = """\
[databases]
* = host={folder} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
"""


def find_pgbouncer() -> str:
    """Returns the path of PgBouncer."""
    path = shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    return path or missing("PgBouncer", "pgbouncer", brew="pgbouncer")


class PgBouncer:
    """Pools transactions of the database that `url` names, as the bridge's setting has it."""

    def __init__(self, folder: Path, url: str) -> None:
        found = re.fullmatch(r"postgresql\+psycopg://([^@]*)@/(\w+)\?host=([^&]+).*", url)
        assert found
        user, database, sockets = found.groups()
        port, owner = free_port(), Path(unquote(sockets)).owner()
        self.url = f"postgresql+psycopg://{user}@127.0.0.1:{port}/{database}"
        configuration = folder / "pgbouncer.ini"
        configuration.write_text(_CONFIGURATION.format(folder=unquote(sockets), user=user, port=port))
        with configuration.open() as opened:  # the folder of the tests may be root's alone
            command = [find_pgbouncer(), "-q", f"/dev/fd/{opened.fileno()}"]
            # it refuses to run as root, and only the server's user may use its socket
            user_option = {"user": owner} if os.getuid() == 0 else {}
            self._process = subprocess.Popen(command, pass_fds=[opened.fileno()], **user_option)
            wait_until(lambda: self._accepts_connections(port))

    def _accepts_connections(self, port: int) -> bool:
        assert self._process.poll() is None
        try:
            Client(port).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        self._process.kill()  # asked to end, newer ones wait for their clients
        self._process.wait()
