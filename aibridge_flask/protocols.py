"""The protocols that wire formats and upstream responses implement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from .model import HeaderList, Offer, RequestFacts, Tool, ToolCall, ToolResult, Turn


class UpstreamResponse(Protocol):
    """A response of an upstream whose status and headers have been read.

    `iter_body` yields the body as it arrives, and b"" for each `idle_interval` seconds without bytes.
    `complete` is true once the last piece of the body has been yielded. `close` may be called at any time.
    """

    status: int
    headers: HeaderList

    @property
    def complete(self) -> bool: ...
    def iter_body(self, idle_interval: float) -> Iterator[bytes]: ...
    def close(self) -> None: ...


class Fold(Protocol):
    """Reads the body of an upstream response, and returns the bytes for the client.

    `feed` takes a piece of the body, `end` its end; both return bytes for the client. `turn` returns the
    facts read so far, `estimated_output` how many tokens of output the text so far may be.
    `at_event_boundary`: the bytes returned so far end between two events, so a ping may follow.
    `complete`: the API's last event has been read. `changed`: `turn()` has new facts.
    `exact`: no byte was changed or withheld. `awaits_tools`: the response has ended and calls offered tools
    only; they must run before the client's response can continue. `buffered`: bytes of an event that is not
    complete yet.
    """

    @property
    def at_event_boundary(self) -> bool: ...
    @property
    def complete(self) -> bool: ...
    @property
    def changed(self) -> bool: ...
    @property
    def exact(self) -> bool: ...
    @property
    def awaits_tools(self) -> bool: ...
    @property
    def buffered(self) -> int: ...
    def feed(self, piece: bytes) -> bytes: ...
    def end(self) -> bytes: ...
    def estimated_output(self) -> int: ...
    def turn(self) -> Turn: ...


class Splice(Fold, Protocol):
    """A fold over all upstream responses of one request to which tools were offered.

    `follow_up` takes the results of the tool calls and returns the body of the next upstream request. The
    bytes fed afterwards are its response.
    """

    def follow_up(self, results: Sequence[tuple[ToolCall, ToolResult]], /) -> bytes: ...


class Format(Protocol):
    """A wire format: a module of pure functions.

    `read` returns the facts of a request body, `upstream_body` the body to send. `fold` and `blocking_fold`
    read streamed and blocking responses, `splice` and `blocking_splice` those to which tools were offered.
    `refusal` returns why the API refuses a tool, or "".
    """

    NAME: str
    PING: bytes

    def read(self, body: bytes, /) -> RequestFacts: ...
    def upstream_body(self, body: bytes, facts: RequestFacts, /) -> bytes: ...
    def fold(self, facts: RequestFacts, /) -> Fold: ...
    def blocking_fold(self) -> Fold: ...
    def refusal(self, tool: Tool, /) -> str: ...
    def offer(self, body: bytes, facts: RequestFacts, tools: tuple[Tool, ...], /) -> Offer: ...
    def splice(self, offer: Offer, facts: RequestFacts, /) -> Splice: ...
    def blocking_splice(self, offer: Offer, facts: RequestFacts, /) -> Splice: ...
    def error_body(self, error: Any, request_id: str, /) -> bytes: ...
    def error_event(self, error: Any, request_id: str, /) -> bytes: ...
