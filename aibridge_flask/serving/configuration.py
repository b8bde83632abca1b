"""gunicorn's configuration for the bridge.

gunicorn executes its configuration file again at each HUP, while imported modules stay. So everything that
must happen at a reload is in `configure`, which the file calls.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import socket
import sys
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote

from ..config import load, take_snapshot
from ..errors import ConfigError
from ..observe import multiprocess
from ..records import recorder
from .worker import DrainingWorker

_OPEN_MAX = 10240  # what macOS allows where the hard limit is infinite
_SWITCH_SECONDS = 0.0005  # after which the applier's thread lets requests run


def configure() -> dict[str, Any]:
    """Returns gunicorn's settings and hooks.

    Reads the configuration. At the first start an error ends the server (SystemExit). At a reload an
    exception would stop the server, so the previous configuration stays.
    """
    try:
        error = take_snapshot()
    except ConfigError as config_error:
        raise SystemExit(f"aibridge: {config_error.message}") from None
    _raise_file_limit()
    if load({}).metrics.enabled:
        multiprocess.set_up(keeps_counts="GUNICORN_PID" in os.environ)
    return {**_settings(), **_hooks(error)}


def _settings() -> dict[str, Any]:
    return {
        "bind": os.environ.get("AIBRIDGE_BIND", "127.0.0.1:8080"),
        "workers": int(os.environ.get("AIBRIDGE_WORKERS", "1")),
        "worker_class": DrainingWorker,
        "worker_connections": 2000,
        "keepalive": 75,  # longer than nginx keeps an idle connection; otherwise POSTs fail on closed ones
        "graceful_timeout": 600,  # longer than the longest stream that should survive a reload
        "max_requests": 0,  # a worker that restarts for it would not accept new connections while it drains
        "limit_request_line": 8190,
        "limit_request_field_size": 32768,
        "control_socket_disable": True,
    }


def _hooks(error: str) -> dict[str, Any]:
    def on_reload(server: Any) -> None:
        if error:
            server.log.error("the configuration is wrong, the old one stays: %s", error)

    return {
        "on_starting": _migrate,
        "on_reload": on_reload,
        "when_ready": _log_base_urls,
        "child_exit": _keep_counts,
        "on_exit": _tear_down,
        "post_worker_init": _start_worker,
    }


def _raise_file_limit() -> None:
    """An open stream holds two descriptors: one for the client, one for the upstream."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(soft, _OPEN_MAX) if hard == resource.RLIM_INFINITY else hard
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))


def _migrate(server: Any) -> None:
    """Reports a database error as one line, where a worker would stop with a traceback."""
    try:
        recorder.check(load({}))
    except ConfigError as error:
        raise SystemExit(f"aibridge: {error.message}") from None


def _log_base_urls(server: Any) -> None:
    from ..web.index import base_urls

    script = quote(os.environ.get("SCRIPT_NAME", "")).rstrip("/")
    scheme = "https" if server.cfg.is_ssl else "http"
    for host in dict.fromkeys(_host(listener) for listener in server.LISTENERS):
        for client, setting in base_urls(load({}), f"{scheme}://{host}{script}"):
            server.log.info("%s: %s", client, setting)


def _host(listener: Any) -> str:
    """Returns host and port of a URL for clients on this machine."""
    if listener.family == socket.AF_UNIX:
        return "<the proxy in front>"
    address, port = listener.getsockname()[:2]
    ip = ip_address(address)
    if ip.is_unspecified:
        ip = ip_address("::1" if ip.version == 6 else "127.0.0.1")
    return f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"


def _keep_counts(server: Any, worker: Any) -> None:
    multiprocess.merge_dead_worker(worker.pid)


def _tear_down(server: Any) -> None:
    multiprocess.tear_down()


def _start_worker(worker: Any) -> None:
    bridge = getattr(worker.wsgi, "extensions", {}).get("aibridge")
    if bridge is not None:
        bridge.start(worker.wsgi)
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.collect()
    gc.freeze()  # collections skip all objects that exist now
    gc.set_threshold(20_000, 20, 20)  # a request leaves almost no garbage
