"""The events that the recorder takes: frozen values that may be applied repeatedly.

They become upserts keyed by interception, turn and position. They are msgspec Structs: several are created
for each request, and msgspec also encodes them for the spool.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from msgspec import Struct

from ..model import EMPTY, Asked, Served, Usage

EPOCH = datetime.fromtimestamp(0, UTC)


def now() -> datetime:
    """Returns the current time in UTC."""
    return datetime.now(UTC)


class Hold(Struct, frozen=True):
    """What an interception is expected to spend of a limit's account, in the limit's unit."""

    account: int
    bucket: int
    held: int
    limit_name: str
    subject: str


class Started(Struct, frozen=True):
    """The start of an interception, recorded before the upstream is called. `profile` is as in `Asked`.

    `groups` are those of the actor, sorted; `token_id` is the gateway token that was used, if any.
    `estimated_input` are the tokens that count if no response tells any. `holds` are those that the database
    does not have yet.
    """

    id: str
    initiator_id: str
    started_at: datetime
    metadata: Mapping[str, str] = EMPTY
    provider: str = ""
    provider_name: str = ""
    model: str = ""
    client: str = ""
    client_session_id: str = ""
    user_agent: str = ""
    credential_kind: str = ""
    credential_hint: str = ""
    correlating_tool_call_id: str = ""
    agent_id: str = ""
    parent_agent_id: str = ""
    route: str = ""
    streaming: bool = False
    request_sha256: str = ""
    kind: str = "main"
    profile: str = ""
    groups: tuple[str, ...] = ()
    token_id: str = ""
    estimated_input: int = 0
    holds: tuple[Hold, ...] = ()


class Prompt(Struct, frozen=True):
    """The user's prompt."""

    interception_id: str
    prompt: str
    created_at: datetime


class PromptAnswered(Struct, frozen=True):
    """The response to the prompt has an id."""

    interception_id: str
    provider_response_id: str


class CredentialUsed(Struct, frozen=True):
    """The request was served with another credential than the first one."""

    interception_id: str
    credential_hint: str


class TokenUsage(Struct, frozen=True):
    """The tokens of one upstream response, or of a model that served inside it; a later event replaces an
    earlier one. `turn` numbers these: it is the response's number as long as nothing served inside."""

    interception_id: str
    turn: int
    provider_response_id: str
    model: str
    usage: Usage
    created_at: datetime
    served: Served = Served()
    asked: Asked = Asked()


class ToolUsage(Struct, frozen=True):
    """A tool call of the model; a later event replaces an earlier one. `duration_ms` is that of one that the
    bridge has run."""

    interception_id: str
    turn: int
    position: int
    provider_response_id: str
    tool_call_id: str
    item_id: str
    tool: str
    input: str
    created_at: datetime
    injected: bool = False
    server_url: str = ""
    invocation_error: str = ""
    duration_ms: int = 0


class ModelThought(Struct, frozen=True):
    """Reasoning of the model. `source` is as in `Thought`."""

    interception_id: str
    turn: int
    position: int
    content: str
    source: str
    created_at: datetime


class Ended(Struct, frozen=True):
    """The end of an interception. `status_code` is 0 without a response, `first_byte_at` the epoch without a
    byte.

    `usages` are those of its responses, which are priced separately: a model may cost more per token in a
    large request. The versions before wrote `parts`, each with the models whose prices apply.
    `is_estimated`: the response broke off, and the last usage has more than it told.
    `attempts` is how many times an upstream was asked, `limit_id` the limit that had no room.
    Milliseconds are by the monotonic clock, since the request was read; `overhead_ms` are those of the first
    byte that were not spent waiting for the upstream.
    """

    id: str
    ended_at: datetime
    status_code: int = 0
    first_byte_at: datetime = EPOCH
    error_type: str = ""
    error_message: str = ""
    wire_exact: bool = False
    response_sha256: str = ""
    usage: Usage = Usage()
    parts: tuple[tuple[Usage, tuple[str, ...]], ...] = ()
    usages: tuple[TokenUsage, ...] = ()
    is_estimated: bool = False
    attempts: int = 0
    overhead_ms: float = 0.0
    first_byte_ms: float = 0.0
    duration_ms: float = 0.0
    limit_id: str = ""


class GatewayTokenUsed(Struct, frozen=True):
    """A gateway token was used."""

    token_id: str
    last_used_at: datetime


class StoredObject(Struct, frozen=True):
    """A provider stores a response or conversation that an actor has made."""

    provider_name: str
    id: str
    initiator_id: str
    created_at: datetime


EVENTS = (
    Started,
    Prompt,
    PromptAnswered,
    CredentialUsed,
    TokenUsage,
    ToolUsage,
    ModelThought,
    Ended,
    GatewayTokenUsed,
    StoredObject,
)
Event = (
    Started
    | Prompt
    | PromptAnswered
    | CredentialUsed
    | TokenUsage
    | ToolUsage
    | ModelThought
    | Ended
    | GatewayTokenUsed
    | StoredObject
)


def text_size(event: Event) -> int:
    """Returns how many characters the texts of an event have, if there may be many."""
    if isinstance(event, ToolUsage):
        return len(event.input) + len(event.invocation_error)
    if isinstance(event, ModelThought):
        return len(event.content)
    return len(event.prompt) if isinstance(event, Prompt) else 0


class InterceptionStarted(Struct, frozen=True):
    """Hook: the start has been written, and the upstream is about to be called."""

    started: Started


class EventRecorded(Struct, frozen=True):
    """Hook: an event of an interception has been recorded."""

    started: Started
    event: Event


class FirstByte(Struct, frozen=True):
    """Hook: the first byte of a response went to the client, `seconds` after the request was read.

    `overhead` are the seconds of these that were not spent waiting for the upstream.
    """

    started: Started
    seconds: float
    overhead: float


class InterceptionEnded(Struct, frozen=True):
    """Hook: an interception has ended. `first_byte` and `overhead` are as in `FirstByte`, 0 without a byte.

    `duration` are the seconds from the request to the end, by the monotonic clock.
    """

    started: Started
    ended: Ended
    first_byte: float = 0.0
    overhead: float = 0.0
    duration: float = 0.0
