"""Errors of limits and rules: the bridge refuses a request that it could serve."""

from __future__ import annotations

from datetime import UTC, datetime
from math import ceil
from time import time

from .base import BridgeError

Header = tuple[str, str]


class LimitError(BridgeError):
    """`limit_id` is that of the limit that refuses, "" for a rule."""

    limit_id = ""


class LimitReached(LimitError):
    """A limit is used up. Clients stop, and show the message.

    `resets_at` is in seconds since the epoch, 0 for a limit that never resets.
    """

    status, type, code, record_type = 429, "billing_error", "insufficient_quota", "limit"
    openai_type = "usage_limit_reached"

    def __init__(self, message: str, limit_id: str = "", resets_at: int = 0, seconds: int = 0) -> None:
        super().__init__(message)
        self.limit_id, self.resets_at, self.retry_after = limit_id, resets_at, seconds

    @property
    def headers(self) -> tuple[Header, ...]:
        """Codex shows the message that stands in a header, in place of a text of its own."""
        words = self.message.encode("ascii", "replace").decode()
        return (*super().headers, ("x-should-retry", "false"), ("x-codex-promo-message", words))


class SessionStopped(LimitReached):
    """An administrator has stopped the session. Clients take it for a used-up limit, and do not ask again."""

    record_type = "policy"

    def __init__(self, resets_at: float) -> None:
        """`resets_at` is in seconds since the epoch."""
        until, seconds = datetime.fromtimestamp(ceil(resets_at), UTC), max(1, ceil(resets_at - time()))
        message = f"an administrator has stopped this session, until {until:%H:%M:%S} UTC"
        super().__init__(message, resets_at=ceil(resets_at), seconds=seconds)


class TooManyRequests(LimitError):
    """A limit by the minute, or of parallel requests, is used up. Clients wait by themselves."""

    status, type, code, record_type = 429, "rate_limit_error", "rate_limit_exceeded", "limit"

    def __init__(self, message: str, limit_id: str, seconds: int) -> None:
        super().__init__(message)
        self.limit_id, self.retry_after = limit_id, seconds


class ModelNotAllowed(LimitError):
    """A rule, or a limit in US$ for a model without a price, does not allow the model."""

    status, type, code, record_type = 400, "invalid_request_error", "model_not_allowed", "policy"
    is_final = True


class ModelForbidden(ModelNotAllowed):
    """As above, for clients of Anthropic's API."""

    status, type = 403, "permission_error"


class ModelNotBilled(ModelNotAllowed):
    """As above, for Claude Code: it takes a 403 for a failed login, and repeats a request after a 400."""

    status, type = 429, "billing_error"


class LimitsUnavailable(LimitError):
    """The database of the limits is away, and requests are refused meanwhile."""

    status, type, code, record_type = 503, "overloaded_error", "limits_unavailable", "overloaded"
    openai_type = "server_error"
    default_message = "the limits cannot be checked now: try again in a moment"
    retry_after = 5
