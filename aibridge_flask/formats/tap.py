"""Folds that change nothing: they return the bytes they get, and read facts on the side.

A `FactReader` belongs to a format and turns events, or a whole body, into a `Turn`. A tap passes it only
the few events that may contain facts. A tap never blocks: bytes that it cannot read are passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from .. import sse
from ..errors import BridgeError, UpstreamCut
from ..model import Failure, Turn
from ..protocols import Fold
from . import body, estimates
from .estimates import SAMPLE_BYTES
from .failures import error_type_of, words_of

BODY_LIMIT = 32 << 20

_STEP_BYTES = 1 << 18  # of a piece that decodes to many times its size


class FactReader(Protocol):
    """Reads the facts of one response.

    `events_to_decode` gets the bytes of whole events and returns those that may contain facts; it skips only
    events that it knows. `read_event` reads such an event, `read_body` the decoded JSON of a blocking
    response. `changed` and `complete` are as in `Fold`.
    """

    changed: bool
    complete: bool

    def events_to_decode(self, events: bytes) -> Iterable[bytes]: ...
    def read_event(self, name: bytes, data: bytes) -> None: ...
    def read_body(self, value: Any) -> None: ...
    def end(self) -> None: ...
    def turn(self) -> Turn: ...


def read_events(reader: FactReader, events: bytes) -> None:
    """Passes whole events to the reader."""
    for name, data in sse.with_data(reader.events_to_decode(events)):
        reader.read_event(name, data)


def read_blocking_body(reader: FactReader, data: bytes) -> None:
    """Passes the JSON of a blocking response to the reader."""
    reader.read_body(body.loads(data))
    reader.end()


class _Tap:
    exact = True
    awaits_tools = False
    buffered = 0

    def __init__(self, reader: FactReader) -> None:
        self._reader = reader
        self.at_event_boundary = False

    @property
    def complete(self) -> bool:
        return self._reader.complete

    @property
    def changed(self) -> bool:
        return self._reader.changed

    def turn(self) -> Turn:
        return self._reader.turn()

    def estimated_output(self) -> int:
        return 0


class StreamTap(_Tap):
    """Reads an event stream."""

    def __init__(self, reader: FactReader) -> None:
        super().__init__(reader)
        self._splitter = sse.EventSplitter()
        self._is_unreadable = False
        self.at_event_boundary = True
        self._size, self._sample = 0, b""

    @property
    def buffered(self) -> int:  # type: ignore[override]
        return self._splitter.buffered

    def feed(self, piece: bytes) -> bytes:
        events = self._splitter.feed(piece)
        self.at_event_boundary = self._splitter.at_event_boundary
        if events:
            self._read(events)
        return piece

    def end(self) -> bytes:
        rest = self._splitter.flush()
        if rest:
            self._read(rest)
        self._reader.end()
        return b""

    def estimated_output(self) -> int:
        return estimates.output_tokens(self._size, self._sample)

    def _read(self, events: bytes) -> None:
        self._size, self._sample = self._size + len(events), events[-SAMPLE_BYTES:]
        if self._is_unreadable or b"data:" not in events:
            return
        try:
            read_events(self._reader, events)
        except Exception:  # noqa: BLE001 - a reading error must not stop the stream
            self._is_unreadable = True


class BlockingTap(_Tap):
    """Reads a body that is one JSON value, once all of it has arrived."""

    def __init__(self, reader: FactReader) -> None:
        super().__init__(reader)
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
            self._read()
            self._parts.clear()
        return b""

    def _read(self) -> None:
        try:
            if self._size <= BODY_LIMIT:
                read_blocking_body(self._reader, b"".join(self._parts))
        except Exception:  # noqa: BLE001 - a reading error must not stop the response
            self._reader.complete = True


class DecodingFold:
    """Passes a response with a content coding, decoded, to another fold.

    Returns the coded bytes as they came. If the inner fold withholds some bytes (`emits_decoded`), returns
    what that fold returns, decoded.
    """

    def __init__(self, inner: Fold, inflate: Callable[[bytes], bytes], emits_decoded: bool) -> None:
        self._inner, self._inflate, self._emits_decoded = inner, inflate, emits_decoded
        self._broken = False

    @property
    def at_event_boundary(self) -> bool:
        """No ping can be inserted into a coded stream."""
        return self._emits_decoded and self._inner.at_event_boundary

    @property
    def complete(self) -> bool:
        return self._inner.complete

    @property
    def changed(self) -> bool:
        return self._inner.changed

    @property
    def exact(self) -> bool:
        return not self._emits_decoded

    @property
    def awaits_tools(self) -> bool:
        return self._inner.awaits_tools

    @property
    def buffered(self) -> int:
        return self._inner.buffered

    def feed(self, piece: bytes) -> bytes:
        decoded = b"" if self._broken else self._decode(piece)
        return decoded if self._emits_decoded else piece

    def _decode(self, piece: bytes) -> bytes:
        try:
            decoded = self._inflate(piece)
            starts = range(0, len(decoded), _STEP_BYTES)  # between steps other threads run
            return b"".join([self._inner.feed(decoded[start : start + _STEP_BYTES]) for start in starts])
        except BridgeError:
            if self._emits_decoded:
                raise UpstreamCut from None
            self._broken = True
            return b""

    def end(self) -> bytes:
        rest = self._inner.end()
        return rest if self._emits_decoded else b""

    def turn(self) -> Turn:
        return self._inner.turn()

    def estimated_output(self) -> int:
        return self._inner.estimated_output()


class ErrorReader:
    """Reads only the message of an error response (status not 2xx)."""

    changed = False
    complete = False

    def __init__(self, type: str) -> None:
        self._type = type
        self._message = ""

    def events_to_decode(self, events: bytes) -> Iterable[bytes]:
        return ()

    def read_event(self, name: bytes, data: bytes) -> None:
        """Error responses contain no events that matter."""

    def read_body(self, value: Any) -> None:
        _, _, self._message = words_of(value)
        self.changed = True

    def end(self) -> None:
        self.complete = True

    def turn(self) -> Turn:
        return Turn(failure=Failure(self._type, self._message))


def error_fold(status: int) -> Fold:
    """Returns the fold of an error response (status not 2xx)."""
    return BlockingTap(ErrorReader(error_type_of(status)))
