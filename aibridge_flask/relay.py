"""The WSGI iterator. However the server ends it, an interception ends exactly once."""

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

_LINGER_RESET = struct.pack("ii", 1, 0)
_UPSTREAM_CUT = "the upstream's answer broke off"


class StreamEnd(Struct, frozen=True):
    """What happens at the end of a response.

    `on_early_end` is called with the reason if the response was not relayed to its end. `error_event` returns
    the error event that may still be written, or b"". `close` closes the upstream and the client's watcher.
    """

    on_early_end: Callable[[BridgeError], None]
    error_event: Callable[[BridgeError], bytes]
    close: Callable[[], None]


class Cleanup:
    """A stack of callbacks, called once, the last one first. One added after `close` is called at once."""

    __slots__ = ("_callbacks", "_is_closed")

    def __init__(self) -> None:
        self._callbacks: list[Callable[[], object]] = []
        self._is_closed = False

    def add(self, callback: Callable[[], object]) -> None:
        self._callbacks.append(callback)
        if self._is_closed:
            self.close()

    def close(self) -> None:
        self._is_closed = True
        while self._callbacks:
            try:
                callback = self._callbacks.pop()
            except IndexError:  # another thread took it
                return
            callback()


class Relay:
    """Yields the pieces of a response to the server.

    An object, not a generator: the server also calls `close` on an iterator that it never started, and then a
    generator's `finally` does not run.

    A truncated upstream response becomes an OSError that servers take for a client that disconnected. They
    close the connection without the last chunk, so that no client takes the response for complete.
    """

    def __init__(
        self, pieces: Iterator[bytes], end: StreamEnd, client_socket: Any, sends_head: bool, http10: bool
    ) -> None:
        """With `sends_head` the first piece is b"": the server sends status and headers at once."""
        self._pieces, self._end = pieces, end
        self.client_socket, self._http10 = client_socket, http10
        self.written, self.is_writing = 0, False
        self._sends_head = sends_head
        self._prefetched: list[bytes] = []
        self._is_broken = self._is_closed = False

    def __iter__(self) -> Relay:
        return self

    def prefetch(self) -> None:
        """Reads the first piece before the status is sent: a failure before it can still become a status.

        Raises UpstreamCut, UpstreamTimeout, ClientDisconnected; the caller then records the end.
        """
        self._prefetched = list(itertools.islice(self._pieces, 1))

    def __next__(self) -> bytes:
        """Returns the next piece; the server has then written the one before."""
        self.is_writing = False
        piece = self._next_piece()
        self.written += 1
        self.is_writing = True
        return piece

    def _next_piece(self) -> bytes:
        if self._prefetched:
            return self._prefetched.pop()
        if self._sends_head:
            self._sends_head = False
            return b""
        if self._is_broken:
            self._abort(_UPSTREAM_CUT)
        try:
            return next(self._pieces)
        except StopIteration:
            self._close()
            raise
        except ClientDisconnected as error:
            self._end_early(error)
            self._abort("the client has left")
        except BridgeError as error:
            return self._fail(error)
        except Exception:
            self._end_early(GatewayError())
            raise

    def close(self) -> None:
        """Called by the server when it is done, or cannot continue."""
        self._end_early(ClientDisconnected())

    def _fail(self, error: BridgeError) -> bytes:
        """Returns the error event, after which the connection is aborted."""
        event = self._end.error_event(error)
        self._end_early(error)
        self._is_broken = True
        if not event:
            self._abort(_UPSTREAM_CUT)
        return event

    def _end_early(self, error: BridgeError) -> None:
        if not self._is_closed:
            try:
                self._end.on_early_end(error)
            finally:
                self._close()

    def _close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._end.close()

    def _abort(self, reason: str) -> NoReturn:
        """Resets an HTTP/1.0 connection, which has no chunks: only a reset tells truncation from an end.

        Not on HTTP/1.1, where a reset could discard the event just sent. The reset must precede the server's
        close: some servers shut down the sending side first, which looks like a complete response.
        """
        if self._http10 and self.client_socket is not None:
            with contextlib.suppress(OSError), socket.socket() as unconnected:
                self.client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
                # closes the connection, and keeps the descriptor's number for the server
                os.dup2(unconnected.fileno(), self.client_socket.fileno(), inheritable=False)
        raise OSError(errno.ECONNRESET, reason)
