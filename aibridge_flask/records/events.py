"""What the recorder is told: frozen values, each safe to be told twice.

They are upserts keyed by the interception, the turn and the position in it. Structs of msgspec, which
also writes them to the spool: several are made for each request, and these are made fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from msgspec import Struct

from ..model import EMPTY, Usage

EPOCH = datetime.fromtimestamp(0, UTC)


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


class Started(Struct, frozen=True):
    """An interception, told before the upstream is called."""

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


class Prompt(Struct, frozen=True):
    interception_id: str
    prompt: str
    created_at: datetime


class PromptAnswered(Struct, frozen=True):
    """The prompt's answer has an id."""

    interception_id: str
    provider_response_id: str


class CredentialUsed(Struct, frozen=True):
    """Another credential than the first one served."""

    interception_id: str
    credential_hint: str


class TokenUsage(Struct, frozen=True):
    interception_id: str
    turn: int
    provider_response_id: str
    model: str
    usage: Usage
    created_at: datetime


class ToolUsage(Struct, frozen=True):
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


class ModelThought(Struct, frozen=True):
    interception_id: str
    turn: int
    position: int
    content: str
    source: str
    created_at: datetime


class Ended(Struct, frozen=True):
    """How it ended; `status_code` is 0 where no answer came, `first_byte_at` the epoch where no
    byte came. The cost is that of `parts`, for models may cost more per token in a large request: what each
    answer used, and the models of which the first that has a price counts."""

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


class GatewayTokenUsed(Struct, frozen=True):
    """A gateway token was used."""

    token_id: str
    last_used_at: datetime


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
)


class InterceptionStarted(Struct, frozen=True):
    """It is written, and the upstream is about to be called."""

    started: Started


class EventRecorded(Struct, frozen=True):
    """Something became known of an interception."""

    started: Started
    event: Event


class FirstByte(Struct, frozen=True):
    """The first byte of an answer went to the client: seconds since the request was read, and how
    many of them were not spent waiting for the upstream."""

    started: Started
    seconds: float
    overhead: float


class InterceptionEnded(Struct, frozen=True):
    """`first_byte` and `overhead` are as in `FirstByte`, 0 where no byte came."""

    started: Started
    ended: Ended
    first_byte: float = 0.0
    overhead: float = 0.0
