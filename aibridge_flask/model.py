"""The frozen values that modules pass to each other.

Nothing here does I/O or imports Flask. Optional members are empty, not None. Values created for each request
are msgspec Structs: creating one takes a fraction of the time that a frozen dataclass takes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from msgspec import Struct

EMPTY: Mapping[str, Any] = MappingProxyType({})
_LOW_62_BITS = (1 << 62) - 1
_MAX_IDENTIFIER = 256  # characters
HeaderList = tuple[tuple[str, str], ...]


def new_id() -> str:
    """Returns a UUID of version 7 (RFC 9562 5.7) as text, so that ids sort by the time of their creation.

    Ids are not secrets. `random` is reseeded in each forked process.
    """
    milliseconds, random_bits = time.time_ns() // 1_000_000, random.getrandbits(74)
    high, low = random_bits >> 62, random_bits & _LOW_62_BITS
    value = milliseconds << 80 | 0x7 << 76 | high << 64 | 0x2 << 62 | low
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def identifier(text: str) -> str:
    """Returns a name or id as it stands in records, labels and caches: clients and models choose its length.

    >>> len(identifier("m" * 1000)), identifier("claude")
    (256, 'claude')
    """
    return text[:_MAX_IDENTIFIER]


def _plain_str(value: object) -> str:
    """Returns an exact `str`: `str(value)` may return an instance of a subclass."""
    return "".join((str(value),))


@dataclass(frozen=True, slots=True)
class Actor:
    """The user on whose behalf a request is made. An `admin` may read the records of all users.

    `groups` are sorted and unique. `token_id` is that of the gateway token, if one was used.

    >>> Actor("ann", groups=("b", "a", "b", "")).groups
    ('a', 'b')
    """

    id: str
    metadata: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    admin: bool = False
    groups: tuple[str, ...] = ()
    token_id: str = ""

    def __post_init__(self) -> None:
        """Converts ids, groups and metadata to plain `str`: hosts pass numbers and subclasses of `str`."""
        object.__setattr__(self, "id", _plain_str(self.id))
        if self.groups:
            groups = sorted({_plain_str(group) for group in self.groups} - {""})
            object.__setattr__(self, "groups", tuple(groups))
        if self.metadata:
            metadata = {_plain_str(key): _plain_str(value) for key, value in self.metadata.items()}
            object.__setattr__(self, "metadata", metadata)


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret text. `repr`, log lines and tracebacks do not show it."""

    value: str = field(repr=False)

    def __bool__(self) -> bool:
        return bool(self.value)


class ClientRequest(Struct, frozen=True):
    """A request of a client, independent of the web framework.

    `headers` has lower-case names and holds secrets. `path` and `query` are those of the raw target, without
    the gateway's prefix. `read_body` reads the body once and enforces the size limit. `client_socket` is None
    if the server does not expose it.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    read_body: Callable[[], bytes]
    client_socket: Any = None
    http10: bool = False

    def __repr__(self) -> str:
        return f"ClientRequest({self.method!r}, {self.path!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("method", self.method), ("path", self.path)]  # the inherited one shows all members


class ClientResponse(Struct, frozen=True):
    """The response to a client. `body` is an iterator with `close()`, or a tuple of bytes."""

    status: int
    headers: HeaderList
    body: Any


class UpstreamRequest(Struct, frozen=True):
    """A request to an upstream, with its credential.

    `id` (of the interception) and `model` (as requested) are for dumps and traces.
    """

    method: str
    url: str
    headers: HeaderList
    body: bytes = b""
    id: str = ""
    model: str = ""

    def __repr__(self) -> str:
        return f"UpstreamRequest({self.method!r}, {self.url.partition('?')[0]!r}, id={self.id!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("method", self.method), ("url", self.url.partition("?")[0]), ("id", self.id)]


class RequestFacts(Struct, frozen=True):
    """The facts that are read from a request's body.

    `kind` is `main`, or names what a client does beside the conversation; `side_kind` is that kind if the
    request comes from a client that asks for such things. `prompt` is the user's last text.
    `user_id` is Anthropic's `metadata.user_id`. `includes_usage` is false for a streamed chat completion that
    does not ask for its usage. `continues` are the stored objects whose content the request brings in, each
    as what the API calls it and its id. `is_stored`: the provider keeps the response. `max_output` is the
    most tokens that the answer may have, 0 if the request does not say.
    """

    model: str = ""
    streaming: bool = False
    prompt: str = ""
    correlating_tool_call_id: str = ""
    background: bool = False
    user_id: str = ""
    includes_usage: bool = True
    kind: str = "main"
    side_kind: str = ""
    continues: tuple[tuple[str, str], ...] = ()
    is_stored: bool = False
    max_output: int = 0


class Usage(Struct, frozen=True):
    """Token counts of one upstream response. `input_tokens` does not include cached tokens.

    `metadata` counts further kinds by name, such as `output_reasoning`.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    metadata: Mapping[str, int] = EMPTY

    def plus(self, other: Usage) -> Usage:
        """Returns the sum of both, kind by kind."""
        kinds = {*self.metadata, *other.metadata}
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_input_tokens + other.cache_read_input_tokens,
            self.cache_write_input_tokens + other.cache_write_input_tokens,
            {kind: self.metadata.get(kind, 0) + other.metadata.get(kind, 0) for kind in sorted(kinds)},
        )


class Served(Struct, frozen=True):
    """How a response was served, as far as its price depends on it, in the words of the answer."""

    service_tier: str = ""
    speed: str = ""
    inference_geo: str = ""


class Asked(Struct, frozen=True):
    """What was asked of whom, as far as the price depends on it.

    `provider` is the type. `profile` is the id or ARN that Bedrock was called with.
    """

    model: str = ""
    provider: str = ""
    provider_name: str = ""
    profile: str = ""


class ToolCall(Struct, frozen=True):
    """A call of a tool by the model. `input` is JSON text, or plain text for custom tools."""

    id: str
    name: str
    input: str = ""
    item_id: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Tool:
    """A tool of an MCP server, as it is offered to models.

    `id` is the name that models see, `name` the server's own. `input_schema` is the server's and must not be
    changed. Tools are compared by identity, so that values derived from them can be cached by them.
    """

    id: str
    server: str
    server_url: str
    name: str
    description: str
    input_schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The result of a tool call.

    `content` are MCP content blocks, `structured` is the structured content. `error` says why the call itself
    failed; `is_error` is then true as well. `is_error` without `error`: the tool ran and reported a failure.
    """

    content: tuple[Mapping[str, Any], ...] = ()
    structured: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    is_error: bool = False
    error: str = ""


class Thought(Struct, frozen=True):
    """Reasoning of the model. `source` is `thinking`, `reasoning_summary` or `commentary`."""

    content: str
    source: str


class Failure(Struct, frozen=True):
    """Why an interception failed; false if it succeeded. `type` is the record's `error_type`."""

    type: str = ""
    message: str = ""

    def __bool__(self) -> bool:
        return bool(self.type)


class Turn(Struct, frozen=True):
    """The facts known so far about one upstream response; also valid for a truncated one.

    `conversation_id` is that of the stored conversation to which the response belongs, if to any.
    `inner_usages` are the tokens that served inside the response and `usage` does not count, with the model.
    """

    response_id: str = ""
    conversation_id: str = ""
    model: str = ""
    usage: Usage = Usage()
    served: Served = Served()
    inner_usages: tuple[tuple[str, Usage], ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    thoughts: tuple[Thought, ...] = ()
    failure: Failure = Failure()

    @property
    def usages(self) -> tuple[tuple[str, Usage], ...]:
        """All tokens of the response, by the model that served."""
        return ((self.model, self.usage), *self.inner_usages)


class Offer(Struct, frozen=True):
    """A request body with offered tools; without tools the body is unchanged.

    `strips_encrypted`: the body asks for encrypted reasoning that the client did not ask for, so it must not
    appear in the client's response. `is_unlinked`: no later request refers to the response by its id.
    `follow_up_members` replace members of the body in follow-up requests.
    """

    body: bytes
    tools: tuple[Tool, ...] = ()
    strips_encrypted: bool = False
    is_unlinked: bool = False
    follow_up_members: Mapping[str, bytes] = EMPTY
