"""Starts gunicorn in a process that has imported all of it: it takes a tenth of the time of a new interpreter.

One process, patched by gevent, forks at each request: a child that waits, and its child, which is the server.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

_SCRIPT = """
from gevent import monkey
monkey.patch_all()
import gc, json, os, posix, signal, sys
import gevent, gunicorn.app.wsgiapp, alembic
import aibridge_flask.serving.configuration, aibridge_flask.records.text_index, aibridge_flask.pricing.sources
import genai_prices.data
gc.collect()
gc.freeze()
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
buffer = b""
while True:
    while b"\\n" not in buffer:
        piece = posix.read(0, 65536)
        if not piece:
            posix._exit(0)
        buffer += piece
    line, _, buffer = buffer.partition(b"\\n")
    if posix.fork() == 0:
        break
asked = json.loads(line)
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
pid = posix.fork()
if pid:
    status = open(asked["status"], "w")
    print(pid, file=status, flush=True)
    _, code = posix.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(code), file=status, flush=True)
    posix._exit(0)
gevent.reinit()
log = posix.open(asked["log"], posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND)
null = posix.open("/dev/null", posix.O_RDONLY)
for source, target in ((null, 0), (log, 1), (log, 2)):
    posix.dup2(source, target)
posix.close(log)
posix.close(null)
os.chdir(asked["cwd"])
os.environ.clear()
os.environ.update(asked["env"])
sys.argv = asked["argv"]
gunicorn.app.wsgiapp.run(prog="gunicorn")
"""


@cache
def _forker() -> subprocess.Popen[bytes]:
    root = Path(__file__).resolve().parents[2]
    environ = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen([sys.executable, "-c", _SCRIPT], stdin=subprocess.PIPE, cwd=root, env=environ)
    atexit.register(_end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin
    process.stdin.close()
    process.wait()


class ForkedServer:
    """gunicorn, with what tests use of a `Popen`. `argv` begins with the path of its script."""

    def __init__(self, argv: list[str], cwd: Path, env: dict[str, str], log: Path) -> None:
        status = cwd / f"status-{time.monotonic_ns()}"
        os.mkfifo(status)
        # for writing too: it is never at its end
        self._status = os.open(status, os.O_RDWR | os.O_NONBLOCK)
        self.returncode: int | None = None
        asked = {"argv": argv, "cwd": str(cwd), "env": env, "log": str(log), "status": str(status)}
        forker = _forker()
        assert forker.stdin
        forker.stdin.write(json.dumps(asked).encode() + b"\n")
        forker.stdin.flush()
        self.pid = int(self._line(90.0))
        status.unlink()

    def poll(self) -> int | None:
        return self._wait(0.0)

    def wait(self, timeout: float = 60.0) -> int:
        code = self._wait(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("gunicorn", timeout)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _wait(self, timeout: float) -> int | None:
        if self.returncode is None and (line := self._line(timeout)):
            self.returncode = int(line)
            os.close(self._status)
        return self.returncode

    def _line(self, timeout: float) -> str:
        """A line of a few bytes comes whole."""
        if not select.select([self._status], [], [], timeout)[0]:
            return ""
        line = b""
        while not line.endswith(b"\n"):
            line += os.read(self._status, 1)
        return line.decode()

    def __del__(self) -> None:
        if self.returncode is None:
            os.close(self._status)
