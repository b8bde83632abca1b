"""A real nginx in front of the bridge."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from pathlib import Path

from tests.support.missing import missing
from tests.support.server import PREFIX, ROOT, Client, free_port, wait_until

ANN = {"Authorization": "Basic " + base64.b64encode(b"ann:secret").decode(), "X_Remote_User": "mallory"}
"""What a user of `deployment_config` sends; the name of another one does not count."""

_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
_CONFIGURATION = """\
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


def find_nginx() -> str:
    """Returns the path of nginx."""
    path = shutil.which("nginx", path=_SEARCH_PATH)
    return path or missing("nginx", "nginx", brew="nginx")


def deployment_config(folder: Path, *ports: int) -> str:
    """`deploy/nginx.conf` with only its ports and its file of users replaced."""
    (folder / "users").write_text("ann:{PLAIN}secret\n")
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    for old, new in {
        "listen 80;": "listen 127.0.0.1:{port};",
        "server 127.0.0.1:8080 max_fails=0;": "".join(
            f"server 127.0.0.1:{port} max_fails=0;" for port in ports
        ),
        "# auth_basic ": "auth_basic ",
        "# auth_basic_user_file /etc/nginx/aibridge.users;": f"auth_basic_user_file {folder}/users;",
    }.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


class Nginx:
    """Serves `site`: the text inside `http { }`; `{port}` in it is replaced."""

    def __init__(self, folder: Path, site: str) -> None:
        self.port, self._clients = free_port(), list[Client]()
        self.log = folder / "log"
        (folder / "site.conf").write_text(site.replace("{port}", str(self.port)))
        (folder / "nginx.conf").write_text(_CONFIGURATION.format(folder=folder))
        command = [find_nginx(), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(self.log)]
        self._process = subprocess.Popen(command)
        wait_until(self._accepts_connections)

    def _accepts_connections(self) -> bool:
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
