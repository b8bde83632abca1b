"""The WSGI iterator: whatever happens to it, an interception ends exactly once."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from msgspec import Struct

from .errors import BridgeError, ClientDisconnected, GatewayError

_RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class StreamEnd(Struct, frozen=True):
    """What belongs to the end of an answer.

    `on_early_end` hears why it ended early; `farewell` gives the error event that may still be
    written, or nothing; `release` lets go of the upstream and of the client.
    """

    on_early_end: Callable[[BridgeError], None]
    error_event: Callable[[BridgeError], bytes]
    release: Callable[[], None]


class Cleanup:
    """What is to be let go of at the end, the last first; once. What comes after the end is let go of
    at once."""

    __slots__ = ("_calls", "_released")

    def __init__(self) -> None:
        self._calls: list[Callable[[], None]] = []
        self._released = False

    def add(self, call: Callable[[], None]) -> None:
        self._calls.append(call)
        if self._released:
            self.release()

    def release(self) -> None:
        self._released = True
        while self._calls:
            try:
                call = self._calls.pop()
            except IndexError:  # another thread has taken it
                return
            call()


class Relay:
    """Gives the server piece after piece. An object, not a generator: the server calls `close`
    also on one that was never begun, where a generator's `finally` would not run.

    An upstream that broke off becomes an OSError that servers take for a gone client: they
    close the connection without the last chunk, so that nobody takes the answer for whole.
    """

    def __init__(
        self, pieces: Iterator[bytes], ending: StreamEnd, client: Any, opening: bool, http10: bool
    ) -> None:
        self._pieces, self._ending = pieces, ending
        self._client, self._http10 = client, http10
        self._opening = opening
        self._ahead: list[bytes] = []
        self._broken = self._closed = False

    def __iter__(self) -> Relay:
        return self

    def fetch(self) -> None:
        """Gets the first piece before the status goes out, for what breaks off before it is no answer
        at all. Raises UpstreamCut, UpstreamTimeout, ClientGone; the end is then the caller's."""
        self._ahead = list(itertools.islice(self._pieces, 1))

    def __next__(self) -> bytes:
        if self._ahead:
            return self._ahead.pop()
        if self._opening:  # status and headers go out at once, before there is a body
            self._opening = False
            return b""
        if self._broken:
            self._abort("the upstream's answer broke off")
        try:
            return next(self._pieces)
        except StopIteration:
            self._release()
            raise
        except ClientDisconnected as error:
            self._end(error)
            self._abort("the client has left")
        except BridgeError as error:
            return self._break(error)
        except Exception:
            self._end(GatewayError())
            raise

    def close(self) -> None:
        """The server is done, or cannot go on."""
        self._end(ClientDisconnected())

    def _break(self, error: BridgeError) -> bytes:
        last = self._ending.error_event(error)
        self._end(error)
        self._broken = True
        if not last:
            self._abort("the upstream's answer broke off")
        return last

    def _end(self, error: BridgeError) -> None:
        if not self._closed:
            try:
                self._ending.on_early_end(error)
            finally:
                self._release()

    def _release(self) -> None:
        if not self._closed:
            self._closed = True
            self._ending.release()

    def _abort(self, why: str) -> NoReturn:
        """HTTP/1.0 has no chunks, so that only a reset tells a cut from an end; never on 1.1,
        where it could discard the event just sent. It must come before the server's own end: some
        shut the sending side first, which a client takes for a whole answer."""
        if self._http10 and self._client is not None:
            with contextlib.suppress(OSError), socket.socket() as nobody:
                self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
                # ends it, and leaves the server its number
                os.dup2(nobody.fileno(), self._client.fileno(), inheritable=False)
        raise OSError(errno.ECONNRESET, why)
