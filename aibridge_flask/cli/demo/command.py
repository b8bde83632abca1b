"""`aibridge demo`: a bridge to try, with scripted providers and a past; it leaves nothing behind."""

from __future__ import annotations

import contextlib
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from sys import maxsize
from types import FrameType

import click

from .bridge import PREFIX, BridgeFailed, DemoBridge
from .past import write_log
from .people import CLIENTS, PEOPLE
from .providers import ScriptedProviders
from .traffic import Traffic

_REQUESTS_ONCE = 8
_MODEL = CLIENTS[0].models[0].name


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=8090, help="Where it listens, on 127.0.0.1.")
@click.option("--days", type=click.IntRange(1, 365), default=14, help="Days of made-up history.")
@click.option("--once", is_flag=True, help="Ends by itself after a few requests.")
def demo(port: int, days: int, once: bool) -> None:
    """Starts a bridge to try: scripted providers, made-up people and their history.

    It needs no key, does not look at your configuration, and leaves nothing behind.
    """
    _check_port(port)
    signals = _Signals()
    try:
        with signals.handled(), contextlib.ExitStack() as stack:
            _run(stack, signals, port, days, once)
    except BridgeFailed as error:
        raise click.ClickException(f"the bridge did not start: {error}") from None
    except _Stopped:
        click.echo("Stopped: everything of the demonstration is deleted.")


def _run(stack: contextlib.ExitStack, signals: _Signals, port: int, days: int, once: bool) -> None:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aibridge-demo-")))
    (folder / "spool").mkdir(mode=0o700)
    click.echo(f"Making up {days} days of requests ...")
    count = write_log(folder / "spool", days, datetime.now(UTC))
    providers = ScriptedProviders()
    stack.callback(providers.close)
    with signals.deferred():
        bridge = DemoBridge(folder, port, providers.url)
        stack.callback(bridge.stop)
    stack.callback(signals.ignore)
    bridge.wait_ready()
    click.echo(_words(bridge, count))
    traffic = Traffic(bridge.url)
    if once:
        traffic.run(_REQUESTS_ONCE, pauses=False)
        click.echo(f"Requests sent and recorded: {traffic.sent}. Everything is deleted again.")
        return
    threading.Thread(target=traffic.run, args=(maxsize,), daemon=True).start()
    stack.callback(traffic.stop)
    bridge.wait_until_ended()


def _words(bridge: DemoBridge, count: int) -> str:
    """Lines of at most 80 characters, but for URLs."""
    return f"""
Dashboard: {bridge.url}/ui/

It shows {count:,} made-up requests of {len(PEOPLE)} people, and live ones.
No request leaves this machine: scripted providers answer. Try it:

  curl {bridge.root}{PREFIX}/anthropic/v1/messages \\
    -H 'content-type: application/json' -d '{{"max_tokens": 200,
    "model": "{_MODEL}",
    "messages": [{{"role": "user", "content": "Hello"}}]}}'

  ANTHROPIC_BASE_URL={bridge.root}{PREFIX}/anthropic \\
    ANTHROPIC_AUTH_TOKEN=aib_demo claude

Ctrl-C ends it and deletes all of it."""


def _check_port(port: int) -> None:
    try:
        with socket.create_server(("127.0.0.1", port)):
            pass
    except OSError as error:
        raise click.ClickException(
            f"port {port} of 127.0.0.1 cannot be used ({error.strerror}): choose another one with --port"
        ) from None


class _Stopped(BaseException):
    """A signal has asked to end."""


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Signals:
    """The first signal raises _Stopped, later ones do nothing: what is being ended is ended to the end."""

    def __init__(self) -> None:
        self._is_over = self._is_deferred = self._was_received = False

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handles signals within the block. Afterwards they do what they did before."""
        before = [signal.signal(number, self._handle) for number in _SIGNALS]
        try:
            yield
        finally:
            for number, previous in zip(_SIGNALS, before, strict=True):
                signal.signal(number, previous)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """A signal within the block raises _Stopped at its end."""
        self._is_deferred = True
        yield
        self._is_deferred = False
        if self._was_received:
            self._stop()

    def ignore(self) -> None:
        self._is_over = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._is_deferred:
            self._was_received = True
        elif not self._is_over:
            self._stop()

    def _stop(self) -> None:
        self._is_over = True
        raise _Stopped
