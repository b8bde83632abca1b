"""A pause between two requests, which a disconnect of the client ends."""

from __future__ import annotations

from time import monotonic, sleep

from .client import Client

_POLL_SECONDS = 0.5


def pause(seconds: float, client: Client) -> None:
    """Waits `seconds`. Raises ClientDisconnected."""
    end = monotonic() + seconds
    while (remaining := end - monotonic()) > 0:
        client.wait_for(lambda remaining=remaining: sleep(min(remaining, _POLL_SECONDS)))  # type: ignore[misc]
        client.check()
