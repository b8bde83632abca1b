"""What one interception adds to sums and limits, and how that changes."""

from __future__ import annotations

from datetime import datetime
from operator import attrgetter
from typing import Any

from msgspec import Struct

from .sum_tables import AMOUNTS, DAY_KEYS, USAGE_KEYS

MAIN = "main"  # the kind of the conversation
INTERRUPTED = "interrupted"  # the error of one whose worker died
_NO_AMOUNTS = (0,) * len(AMOUNTS)
UNKNOWN = -1  # bucket
_USAGE_NAMES, _DAY_NAMES = attrgetter(*USAGE_KEYS[1:]), attrgetter(*DAY_KEYS[1:-1])


class Contribution(Struct, frozen=True, array_like=True):
    """What an interception adds: `amounts` in the order of `AMOUNTS`, the histograms' buckets that it is in,
    and for each (tool, server, whether it is injected) its calls, failures and milliseconds. `end` is a
    checksum of what its end says, so that an amended one gets a new `seq`. `sent` is 1 if it reached an
    upstream.
    """

    ended: int = 0
    threads: int = 0
    amounts: tuple[int, ...] = _NO_AMOUNTS
    first_byte: int = UNKNOWN
    duration: int = UNKNOWN
    tools: tuple[tuple[tuple[str, str, bool], tuple[int, int, int]], ...] = ()
    end: int = 0
    error_type: str = ""
    sent: int = 0


NOTHING = Contribution()


class Row(Struct, frozen=True):
    """What sums need to know of an interception. Keys are 0 before it was added."""

    id: str
    contributed: Any
    session_key: int | None
    usage_id: int | None
    initiator_id: str
    metadata: Any
    provider: str
    provider_name: str
    model: str
    client: str
    client_session_id: str
    credential_kind: str
    thread_root_id: str | None
    kind: str
    group_set: str
    started_at: datetime
    ended_at: datetime | None
    error_type: str
    cost_status: str
    cost_micros: int | None
    first_byte_ms: float
    duration_ms: float
    wire_exact: bool | None
    response_sha256: str
    agent_id: str
    token_id: str
    attempts: int
    profile: str
    has_prompt: bool

    @property
    def session_id(self) -> str:
        """The client's session id, else the thread's root, else its own id."""
        return self.client_session_id or self.thread_root_id or self.id

    @property
    def last_active(self) -> datetime:
        return self.ended_at or self.started_at

    @property
    def hour(self) -> datetime:
        return self.started_at.replace(minute=0, second=0, microsecond=0)

    @property
    def day(self) -> datetime:
        return self.hour.replace(hour=0)

    @property
    def usage_keys(self) -> tuple[Any, ...]:
        """The keys of its row in `usage_hourly`."""
        return (self.hour, *_USAGE_NAMES(self))

    def day_keys(self, error_type: str) -> tuple[Any, ...]:
        """The keys of its row in `usage_daily`, if it ended with this error."""
        return (self.day, *_DAY_NAMES(self), error_type)


class Change(Struct, frozen=True):
    """What an interception added before and adds now, and to which session and row of `usage_hourly`."""

    row: Row
    before: Contribution
    after: Contribution
    old_session: int
    old_usage: int
    session: int
    usage: int

    @property
    def is_one(self) -> bool:
        """Whether anything differs."""
        has_moved = (self.old_session, self.old_usage) != (self.session, self.usage)
        return has_moved or self.before != self.after
