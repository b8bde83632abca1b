"""Folds that change nothing: they give back the very bytes they get, and read along.

A `Reading` belongs to a format and turns events, or a whole body, into a `Turn`. A tap hands
it only the few events that may carry facts. Reading is never a gate: what cannot be read passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from .. import sse
from ..errors import BridgeError, UpstreamCut
from ..model import Failure, Fold, Turn
from . import body

BODY_LIMIT = 32 << 20
_MESSAGE_LIMIT = 1000


class FactReader(Protocol):
    """`worth` takes a run of events and gives those that may matter: it only skips what it knows.
    `changed` and `complete` are as in `Fold`."""

    changed: bool
    complete: bool

    def events_to_decode(self, run: bytes) -> Iterable[bytes]: ...
    def read_event(self, name: bytes, data: bytes) -> None: ...
    def read_body(self, found: Any) -> None: ...
    def end(self) -> None: ...
    def turn(self) -> Turn: ...


def read_events(reading: FactReader, run: bytes) -> None:
    for event in reading.events_to_decode(run):
        name, data = sse.parse(event)
        if data:
            reading.read_event(name, data)


def read_whole(reading: FactReader, data: bytes) -> None:
    reading.read_body(body.loads(data))
    reading.end()


class _Tap:
    exact = True
    awaits_tools = False

    def __init__(self, reading: FactReader) -> None:
        self._reading = reading
        self.at_event_boundary = False

    @property
    def complete(self) -> bool:
        return self._reading.complete

    @property
    def changed(self) -> bool:
        return self._reading.changed

    def turn(self) -> Turn:
        return self._reading.turn()


class StreamTap(_Tap):
    """Reads an event stream."""

    def __init__(self, reading: FactReader) -> None:
        super().__init__(reading)
        self._scanner = sse.EventSplitter()
        self._lost = False
        self.at_event_boundary = True

    def feed(self, piece: bytes) -> bytes:
        run = self._scanner.feed(piece)
        self.at_event_boundary = self._scanner.at_event_boundary
        if run:
            self._read(run)
        return piece

    def end(self) -> bytes:
        rest = self._scanner.flush()
        if rest:
            self._read(rest)
        self._reading.end()
        return b""

    def _read(self, run: bytes) -> None:
        if self._lost:
            return
        try:
            read_events(self._reading, run)
        except Exception:  # noqa: BLE001 - reading is never a gate: the bytes go on
            self._lost = True


class BlockingTap(_Tap):
    """Reads a body that is one JSON value, once it is whole."""

    def __init__(self, reading: FactReader) -> None:
        super().__init__(reading)
        self._parts: list[bytes] = []
        self._size = 0
        self._ended = False

    def feed(self, piece: bytes) -> bytes:
        self._size += len(piece)
        if self._size <= BODY_LIMIT:
            self._parts.append(piece)
        return piece

    def end(self) -> bytes:
        if not self._ended:
            self._ended = True
            self._whole()
            self._parts.clear()
        return b""

    def _whole(self) -> None:
        try:
            if self._size <= BODY_LIMIT:
                read_whole(self._reading, b"".join(self._parts))
        except Exception:  # noqa: BLE001 - reading is never a gate: the bytes go on
            self._reading.complete = True


class DecodingFold:
    """Reads a coded answer through another fold. What it gives out is the coded bytes, or, where
    the other fold keeps something back, the decoded ones."""

    def __init__(self, inner: Fold, inflate: Callable[[bytes], bytes], give_decoded: bool) -> None:
        self._inner, self._inflate, self._give_decoded = inner, inflate, give_decoded
        self._broken = False

    @property
    def at_event_boundary(self) -> bool:
        """No ping may stand inside a coded stream."""
        return self._give_decoded and self._inner.at_event_boundary

    @property
    def complete(self) -> bool:
        return self._inner.complete

    @property
    def changed(self) -> bool:
        return self._inner.changed

    @property
    def exact(self) -> bool:
        return not self._give_decoded

    @property
    def awaits_tools(self) -> bool:
        return self._inner.awaits_tools

    def feed(self, piece: bytes) -> bytes:
        decoded = b"" if self._broken else self._decode(piece)
        return decoded if self._give_decoded else piece

    def _decode(self, piece: bytes) -> bytes:
        try:
            return self._inner.feed(self._inflate(piece))
        except BridgeError:
            if self._give_decoded:
                raise UpstreamCut from None
            self._broken = True
            return b""

    def end(self) -> bytes:
        rest = self._inner.end()
        return rest if self._give_decoded else b""

    def turn(self) -> Turn:
        return self._inner.turn()


class ErrorReader:
    """Reads nothing but an error's message; for answers that are no success."""

    changed = False
    complete = False

    def __init__(self, type: str) -> None:
        self._type = type
        self._message = ""

    def events_to_decode(self, run: bytes) -> Iterable[bytes]:
        return ()

    def read_event(self, name: bytes, data: bytes) -> None:
        """An error's answer holds no events that matter."""

    def read_body(self, found: Any) -> None:
        error = body.get_object(found, "error")
        self._message = body.get_string(error, "message") or body.get_string(found, "message")
        self.changed = True

    def end(self) -> None:
        self.complete = True

    def turn(self) -> Turn:
        return Turn(failure=Failure(self._type, self._message[:_MESSAGE_LIMIT]))


def parse_error(data: bytes) -> tuple[str, str, str]:
    """Type, code and message of an error's JSON, each empty where it is not told.

    >>> told_error(b'{"error":{"type":"overloaded_error","message":"Overloaded"}}')
    ('overloaded_error', '', 'Overloaded')
    """
    found = body.loads(data)
    error = body.get_object(found, "error")
    message = body.get_string(error, "message") or body.get_string(found, "message")
    return body.get_string(error, "type"), body.get_string(error, "code"), message[:_MESSAGE_LIMIT]


def failure(kind: str, message: str) -> Failure:
    """A failure told in the middle of a stream, by the words that the APIs use for it.

    >>> failure("overloaded_error", "Overloaded").type, failure("server_error", "").type
    ('overloaded', 'server_error')
    """
    for words, type in _KINDS:
        if any(word in kind for word in words):
            return Failure(type, message[:_MESSAGE_LIMIT])
    return Failure("unknown", message[:_MESSAGE_LIMIT])


_KINDS = (
    (("overloaded",), "overloaded"),
    (("rate_limit", "quota"), "rate_limited"),
    (("timeout",), "timeout"),
    (("authentication", "permission", "invalid_api_key"), "unauthorized"),
    (("invalid", "not_found", "too_large", "bad_request", "context_length"), "bad_request"),
    (("server_error", "api_error", "internal"), "server_error"),
)


def error_type_of(status: int) -> str:
    """The record's `error_type` for an upstream's status; empty for success.

    >>> [failure_type(s) for s in (200, 400, 401, 429, 500, 529, 504)]
    ['', 'bad_request', 'unauthorized', 'rate_limited', 'server_error', 'overloaded', 'timeout']
    """
    if 200 <= status < 300:
        return ""
    known = {
        401: "unauthorized",
        403: "unauthorized",
        407: "unauthorized",
        408: "timeout",
        429: "rate_limited",
        503: "overloaded",
        504: "timeout",
        529: "overloaded",
    }
    if status in known:
        return known[status]
    return "bad_request" if 400 <= status < 500 else "server_error" if status >= 500 else "unknown"


def error_fold(status: int) -> Fold:
    """The fold of an answer that is no success."""
    return BlockingTap(ErrorReader(error_type_of(status)))
