"""The demonstration's bridge: gunicorn in a process of its own, with a configuration of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import requests

from ... import serving
from .providers import FIRST_KEY, OPENAI_KEY, SECOND_KEY

PREFIX = "/api/v2/aibridge"
_PACKAGE_ROOT = Path(__file__).resolve().parents[3]
_GUNICORN_CONF = Path(serving.__file__).with_name("gunicorn_file.py")
_APP = "aibridge_flask.cli.demo.app:create({})"
_READY_SECONDS, _STOP_SECONDS, _LOOK_SECONDS = 55.0, 10.0, 0.2
_NOT_INHERITED = ("AIBRIDGE_", "GUNICORN_", "OTEL_", "ANTHROPIC_", "OPENAI_")
_NOT_INHERITED_NAMES = {"WEB_CONCURRENCY", "STATE_DIRECTORY", "SCRIPT_NAME", "PROMETHEUS_MULTIPROC_DIR"}


_LIMITS = [
    {"name": "each person a month", "scope": {"actor": "*"}, "per": "month", "usd": 40.0},
    {"name": "platform team", "scope": {"group": "platform", "shared": True}, "per": "month", "usd": 50.0},
    {"name": "all a day", "scope": "everyone", "per": "day", "usd": 12.0, "mode": "warn"},
    {"name": "agents at a time", "scope": {"session": "*"}, "parallel": 8},
]


class BridgeFailed(Exception):
    """The bridge has not started. The message says why, as far as its log tells."""


class DemoBridge:
    """A running bridge at `url`, whose files are in `folder`. `stop` ends it, and the end of our process."""

    def __init__(self, folder: Path, port: int, providers: str) -> None:
        self.root = f"http://127.0.0.1:{port}"
        self.url = self.root + PREFIX
        self._log = folder / "log"
        config = folder / "aibridge.toml"
        config.write_text(_configuration(folder, providers))
        environ = {**_inherited(), "AIBRIDGE_CONFIG": str(config), "AIBRIDGE_BIND": f"127.0.0.1:{port}"}
        ours, self._held = os.pipe()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "gunicorn", "-c", str(_GUNICORN_CONF), _APP.format(ours)],
                cwd=folder,
                env={**environ, "TMPDIR": str(folder)},
                stdout=log,
                stderr=log,
                start_new_session=True,  # the terminal's Ctrl-C is ours alone
                pass_fds=(ours,),
            )
        os.close(ours)

    def wait_ready(self) -> None:
        """Waits until the history is applied and the dashboard answers. Raises BridgeFailed."""
        deadline = monotonic() + _READY_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None:
                raise BridgeFailed(self._last_line() or "the server has ended")
            if monotonic() > deadline:
                raise BridgeFailed(f"it is not ready after {_READY_SECONDS:.0f} seconds")
            sleep(0.1)

    def _is_ready(self) -> bool:
        with contextlib.suppress(requests.RequestException), requests.Session() as session:
            session.trust_env = False
            ready = session.get(f"{self.url}/readyz", timeout=10)
            if ready.status_code == 200 and ready.json()["records_behind_bytes"] == 0:
                return session.get(f"{self.url}/ui/", timeout=20).status_code == 200
        return False

    def _last_line(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return next((line for line in reversed(lines) if "rror" in line or "aibridge:" in line), "")

    def wait_until_ended(self) -> None:
        """Raises BridgeFailed when its processes have ended by themselves.

        It looks again and again: the kernel may give a signal to another thread, and a wait would go on.
        """
        while self._process.poll() is None:
            sleep(_LOOK_SECONDS)
        raise BridgeFailed(self._last_line() or "the server has ended")

    def stop(self) -> None:
        """Ends all of its processes."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)  # at once: nobody waits for these streams
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._held)


def _inherited() -> dict[str, str]:
    """Returns our environment without what would change the bridge; the package is found from any folder."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_NOT_INHERITED)
        and name not in _NOT_INHERITED_NAMES
        and not name.lower().endswith("_proxy")
    }
    paths = [str(_PACKAGE_ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths)}


def _configuration(folder: Path, providers: str) -> str:
    tree: Mapping[str, Any] = {
        "database_url": f"sqlite:///{folder}/records.db",
        "spool_dir": str(folder / "spool"),
        "drain_delay": 0.0,
        "providers": [
            {
                "type": "anthropic",
                "base_url": f"{providers}/anthropic",
                "keys": [{"value": FIRST_KEY}, {"value": SECOND_KEY}],
                "circuit_breaker": {"failure_threshold": 5},
            },
            {
                "type": "openai",
                "base_url": f"{providers}/openai/v1",
                "keys": [{"value": OPENAI_KEY}],
                "circuit_breaker": {"failure_threshold": 5},
            },
        ],
        "limit": _LIMITS,
        "limits": {"contact": "the platform team"},
        "mcp_servers": [{"name": "office", "url": f"{providers}/mcp", "deny": "^delete"}],
    }
    return "".join(f"{key} = {_toml(value)}\n" for key, value in tree.items())


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)
