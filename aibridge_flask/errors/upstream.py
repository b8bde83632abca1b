"""Errors of the upstream: a provider or an MCP server failed."""

from __future__ import annotations

from math import ceil

from .base import BridgeError


class UpstreamError(BridgeError):
    status, code, record_type = 502, "upstream_error", "server_error"


class UpstreamUnreachable(UpstreamError):
    code = "upstream_unreachable"
    default_message = "the AI provider could not be reached"


class UpstreamConnectionFailed(UpstreamUnreachable):
    """The connection was not established. Nothing was sent, so a retry is safe."""


class UpstreamTimeout(UpstreamError):
    status, code, record_type = 504, "upstream_timeout", "timeout"
    default_message = "the AI provider did not answer in time"


class UpstreamCut(UpstreamError):
    code = "upstream_cut"
    default_message = "the AI provider's answer broke off"


class FollowUpFailed(UpstreamError):
    """The upstream rejected a follow-up request of a stream that has begun; the words are its own."""

    def __init__(self, type: str, code: str, message: str, record_type: str) -> None:
        super().__init__(message)
        self.type, self.code, self.record_type = type or self.type, code or self.code, record_type


class TooManyRounds(UpstreamError):
    code, record_type = "tool_rounds_exceeded", "server_error"

    def __init__(self, limit: int) -> None:
        super().__init__(f"tool_rounds_exceeded: the model still asks for tools after {limit} rounds")


class CredentialsUnavailable(UpstreamError):
    """The cloud's temporary credentials could not be fetched."""

    code, record_type = "credentials_unavailable", "unauthorized"
    default_message = "the AI provider's credentials cannot be had now. Contact your administrator"


class CircuitOpen(UpstreamError):
    """The circuit breaker is open: the upstream has failed repeatedly."""

    status, type, code, record_type = 503, "overloaded_error", "service_unavailable", "overloaded"
    openai_type = "server_error"
    default_message = "circuit breaker is open"

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.retry_after = max(1, ceil(round(seconds, 3)))


class AllKeysRateLimited(UpstreamError):
    status, type, code, record_type = 429, "rate_limit_error", "rate_limit_exceeded", "rate_limited"

    def __init__(self, seconds: float) -> None:
        self.retry_after = max(1, ceil(round(seconds, 3)))
        super().__init__(f"all configured keys are rate-limited (retry after {self.retry_after}s)")


class AllKeysRefused(UpstreamError):
    code, record_type = "server_error", "unauthorized"
    default_message = "all configured keys failed authentication. Contact your administrator"

    def __init__(self, *words: str) -> None:
        """`words` are the provider's own to each key, without secrets; the last ones are told."""
        last = words[-1] if words else ""
        super().__init__(f"{self.default_message}: {last}" if last else "")


class ToolError(UpstreamError):
    code = "tool_error"
    default_message = "the MCP server failed"
