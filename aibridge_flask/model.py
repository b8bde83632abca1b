"""The frozen values that the parts hand to each other, and the shapes they answer to.

Nothing here does I/O, reads a clock or knows Flask. Optional things are empty, never None. What is made for
each request is a Struct of msgspec, which is made in a fraction of a frozen dataclass's time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from msgspec import Struct

EMPTY: Mapping[str, Any] = MappingProxyType({})
_LOW = (1 << 62) - 1
HeaderList = tuple[tuple[str, str], ...]


def new_id() -> str:
    """A UUID of version 7 (RFC 9562 5.7): ids of interceptions sort by their time of birth. They
    are no secrets; `random` begins anew in each forked process."""
    stamp, chance = time.time_ns() // 1_000_000, random.getrandbits(74)
    value = stamp << 80 | 0x7 << 76 | (chance >> 62) << 64 | 0x2 << 62 | chance & _LOW
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _text(value: object) -> str:
    """`str` may give a subclass of it."""
    return "".join((str(value),))


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks. `admin` may read everybody's records."""

    id: str
    metadata: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    admin: bool = False

    def __post_init__(self) -> None:
        """A host's ids are often numbers, or texts of a kind of its own."""
        object.__setattr__(self, "id", _text(self.id))
        if self.metadata:
            texts = {_text(key): _text(value) for key, value in self.metadata.items()}
            object.__setattr__(self, "metadata", texts)


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret text that no `repr`, log line or traceback shows."""

    value: str = field(repr=False)

    def __bool__(self) -> bool:
        return bool(self.value)


class ClientRequest(Struct, frozen=True):
    """What a client sent, free of any framework. `headers` has lower-case names, and secrets; `path` and
    `query` are the raw target's, below the gateway's prefix; `client_socket` is empty (None)
    where the server does not give it; `read_body` reads and counts the body once."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    read_body: Callable[[], bytes]
    client_socket: Any = None
    http10: bool = False

    def __repr__(self) -> str:
        return f"Call({self.method!r}, {self.path!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("method", self.method), ("path", self.path)]  # Struct's own tells all members


class ClientResponse(Struct, frozen=True):
    """What goes back to the client. `body` is an iterator with `close()`, or a tuple of bytes."""

    status: int
    headers: HeaderList
    body: Any


class UpstreamRequest(Struct, frozen=True):
    """A request to an upstream, with its credential. `id` and `model`, the one asked for, are for those
    who look on."""

    method: str
    url: str
    headers: HeaderList
    body: bytes = b""
    id: str = ""
    model: str = ""

    def __repr__(self) -> str:
        return f"Outgoing({self.method!r}, {self.url.partition('?')[0]!r}, id={self.id!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("method", self.method), ("url", self.url.partition("?")[0]), ("id", self.id)]


class RequestFacts(Struct, frozen=True):
    """What is read of a request's body."""

    model: str = ""
    streaming: bool = False
    prompt: str = ""
    correlating_tool_call_id: str = ""
    background: bool = False
    user_id: str = ""
    includes_usage: bool = True


class Usage(Struct, frozen=True):
    """Tokens of one upstream answer; `input_tokens` leaves the cached ones out."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    metadata: Mapping[str, int] = EMPTY

    def plus(self, more: Usage) -> Usage:
        """The sum of two answers'."""
        kinds = {*self.metadata, *more.metadata}
        return Usage(
            self.input_tokens + more.input_tokens,
            self.output_tokens + more.output_tokens,
            self.cache_read_input_tokens + more.cache_read_input_tokens,
            self.cache_write_input_tokens + more.cache_write_input_tokens,
            {kind: self.metadata.get(kind, 0) + more.metadata.get(kind, 0) for kind in sorted(kinds)},
        )


class ToolCall(Struct, frozen=True):
    """A tool that the model picked; `input` is JSON text, or plain text for custom tools."""

    id: str
    name: str
    input: str = ""
    item_id: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Tool:
    """A tool of an MCP server as a model is offered it. `id` is the name that models see, `name` the
    server's own; `input_schema` is the server's, whole, and not to be changed. Two are the same only if
    they are one object, so that what is made of them can be kept by them."""

    id: str
    server: str
    server_url: str
    name: str
    description: str
    input_schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What the server gave, as blocks of MCP, or in `error` why it gave nothing; then `is_error` is true
    as well."""

    content: tuple[Mapping[str, Any], ...] = ()
    structured: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    is_error: bool = False
    error: str = ""


class Thought(Struct, frozen=True):
    """Something the model said to itself: `thinking`, `reasoning_summary` or `commentary`."""

    content: str
    source: str


class Failure(Struct, frozen=True):
    """Why an interception did not succeed; empty when it did."""

    type: str = ""
    message: str = ""

    def __bool__(self) -> bool:
        return bool(self.type)


class Turn(Struct, frozen=True):
    """What is known of one upstream answer, at any moment, also of one that was cut."""

    response_id: str = ""
    model: str = ""
    usage: Usage = Usage()
    tool_calls: tuple[ToolCall, ...] = ()
    thoughts: tuple[Thought, ...] = ()
    failure: Failure = Failure()


class Fold(Protocol):
    """Bytes of an answer in, bytes for the client out, facts on the side.

    `between`: what was given out so far ends between two events, so that a ping may follow.
    `complete`: the API's last event has been seen. `changed`: `turn()` has something new.
    `exact`: no byte was changed or kept back. `wants`: the answer has ended, and asks for offered
    tools alone, which are to be run before it can go on.
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
    def feed(self, piece: bytes) -> bytes: ...
    def end(self) -> bytes: ...
    def turn(self) -> Turn: ...


class Splice(Fold, Protocol):
    """A fold over all answers that one request takes, where tools were offered. `follow_up` gives the
    next request's body; what is fed then is its answer."""

    def follow_up(self, results: Sequence[tuple[ToolCall, ToolResult]], /) -> bytes: ...


class Offer(Struct, frozen=True):
    """A request's body, and the tools that it offers; none of them: the body is as it was.
    `conceals`: the body asks for more than the client did, which its answers must not show. `later` are
    members that are other ones in the requests that follow."""

    body: bytes
    tools: tuple[Tool, ...] = ()
    strips_encrypted: bool = False
    follow_up_members: Mapping[str, bytes] = EMPTY


class Format(Protocol):
    """One wire format: a module of pure functions."""

    NAME: str
    PING: bytes

    def read(self, body: bytes, /) -> RequestFacts: ...
    def upstream_body(self, body: bytes, facts: RequestFacts, /) -> bytes: ...
    def fold(self, facts: RequestFacts, /) -> Fold: ...
    def blocking_fold(self) -> Fold: ...
    def offer(self, body: bytes, facts: RequestFacts, tools: tuple[Tool, ...], /) -> Offer: ...
    def splice(self, offer: Offer, facts: RequestFacts, /) -> Splice: ...
    def blocking_splice(self, offer: Offer, facts: RequestFacts, /) -> Splice: ...
    def error_body(self, error: Any, request_id: str, /) -> bytes: ...
    def error_event(self, error: Any, request_id: str, /) -> bytes: ...


class Interceptor(Struct, frozen=True):
    """A bridged route of a provider that fits a request; `endpoint` is the path after its name."""

    format: Format
    endpoint: str
    url: str


class UpstreamResponse(Protocol):
    """An upstream's answer: its head is known, its body flows through `pieces`.

    `complete` is true as soon as the piece that ends the body has been given out."""

    status: int
    headers: HeaderList

    @property
    def complete(self) -> bool: ...
    def iter_body(self, idle_interval: float) -> Iterator[bytes]: ...
    def close(self) -> None: ...
