"""A real nginx in front of the bridge."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.server import PREFIX, Client, free_port, until

_WHERE = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
_FRAME = """\
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


def program() -> str:
    """Where nginx is; a machine without it skips the test, unless it is there to run all of them."""
    found = shutil.which("nginx", path=_WHERE)
    if not found and os.environ.get("CI") == "true":
        pytest.fail("nginx is missing: apt-get install nginx")
    return found or pytest.skip("nginx is missing: apt-get install nginx (or brew install nginx)")


class Nginx:
    """Serves `site`, what stands inside `http { }`, with `{port}` in it replaced."""

    def __init__(self, folder: Path, site: str) -> None:
        self.port, self._clients = free_port(), list[Client]()
        self.log = folder / "log"
        (folder / "site.conf").write_text(site.replace("{port}", str(self.port)))
        (folder / "nginx.conf").write_text(_FRAME.format(folder=folder))
        command = [program(), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(self.log)]
        self._process = subprocess.Popen(command)
        until(self._answers)

    def _answers(self) -> bool:
        assert self._process.poll() is None, self.log.read_text()
        try:
            Client(self.port).close()
        except OSError:
            return False
        return True

    def connect(self, prefix: str = PREFIX) -> Client:
        self._clients.append(Client(self.port, prefix))
        return self._clients[-1]

    def disconnect(self) -> None:
        while self._clients:
            self._clients.pop().close()

    def stop(self) -> None:
        self.disconnect()
        self._process.kill()
        self._process.wait()
