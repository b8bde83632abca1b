"""The tree of errors. The branch says whose fault an error is; formats turn it into the API's own JSON.

BridgeError
+-- ClientError              the request cannot be served as it came
|   +-- BadBody, BodyTooLarge, UnsupportedEncoding, BackgroundNotSupported
|   +-- MissingCredential, ByokDisabled, NotLocal, UntrustedProxy, Unauthorized
|   +-- UnknownRoute, UnknownProvider, UpgradeRequired
|   +-- ObjectNotFound, AdminsOnly
|   +-- ClientGone           nobody is left to answer
+-- UpstreamError            the provider failed
|   +-- UpstreamUnreachable, UpstreamRefused, UpstreamTimeout
|   +-- UpstreamCut          its response was truncated
|   +-- CredentialsUnavailable  there are no credentials to sign the request with
|   +-- TurnFailed, TooManyRounds  it went wrong after tools were run
|   +-- CircuitOpen, AllKeysRateLimited, AllKeysRefused
|   +-- ToolError            an MCP server failed or refused; the error goes to the model
+-- GatewayError             the bridge failed
    +-- ProviderDisabled, RecordingFailed, IdentityUnavailable
    +-- ConfigError          the bridge does not start
"""

from __future__ import annotations

from math import ceil
from typing import ClassVar

_MAX_SHOWN_ID = 100


class BridgeError(Exception):
    """Base of all errors of the bridge.

    `status` is the HTTP status; `type` and `code` are the API's words, `openai_type` is OpenAI's `type` if it
    differs; `record_type` is the record's `error_type`. `is_final`: a retry cannot succeed, and a header says
    so. `retry_after` is in seconds, 0 if unknown.
    """

    status: ClassVar[int] = 500
    type: str = "api_error"
    code: str = "internal_error"
    record_type: str = "unknown"
    is_final: ClassVar[bool] = False
    default_message: ClassVar[str] = "internal error"
    openai_type: ClassVar[str] = ""
    retry_after = 0
    is_reported = False
    """True once an interception or passthrough event was emitted for it."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or self.default_message)

    @property
    def message(self) -> str:
        return str(self.args[0])

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        if self.retry_after:
            return (("Retry-After", str(self.retry_after)),)
        return (("x-should-retry", "false"),) if self.is_final else ()


class ClientError(BridgeError):
    status, type, code = 400, "invalid_request_error", "invalid_request"
    record_type = "bad_request"


class InvalidBody(ClientError):
    """The body is empty, not JSON, or not a JSON object."""

    code = "invalid_json"


class BodyTooLarge(ClientError):
    status, type, code, is_final = 413, "request_too_large", "request_too_large", True

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"Request body too large. The maximum allowed request body size is {_format_size(limit)}."
        )


class UnsupportedEncoding(ClientError):
    status, code, is_final = 415, "unsupported_encoding", True


class BackgroundNotSupported(ClientError):
    status, code, is_final = 501, "background_not_supported", True
    default_message = "background responses are not supported: leave `background` out or set it to false"


class MissingCredential(ClientError):
    status, type, code, is_final = 401, "authentication_error", "missing_credential", True
    record_type = "unauthorized"


class Unauthorized(ClientError):
    """The actor is unknown: its token is missing or not valid."""

    status, type, code, is_final = 401, "authentication_error", "invalid_gateway_token", True
    record_type = "unauthorized"
    default_message = "the gateway token is missing or not valid"


class ByokDisabled(ClientError):
    status, type, code, is_final = 403, "permission_error", "byok_disabled", True
    default_message = "your own API keys are not accepted here: send none, and the central key is used"


class NotLocal(ClientError):
    status, type, code, is_final = 403, "permission_error", "local_only", True
    default_message = (
        "this bridge serves direct loopback callers only: set auth.mode to"
        ' "token" or "header" to let others in'
    )


class UntrustedProxy(ClientError):
    status, type, code, is_final = 403, "permission_error", "untrusted_proxy", True
    default_message = "this peer may not name the user: add it to auth.trusted_proxies if it is your proxy"


class UnknownRoute(ClientError):
    status, type, code, is_final = 404, "not_found_error", "route_not_supported", True

    def __init__(self, method: str, path: str) -> None:
        super().__init__(f"route not supported: {method} {path}")


class UnknownProvider(ClientError):
    status, type, code, is_final = 404, "not_found_error", "provider_not_found", True

    def __init__(self, name: str) -> None:
        super().__init__(f'provider_not_found: there is no AI provider "{name}"')


class ObjectNotFound(ClientError):
    """A stored response or conversation was made by somebody else, which the message does not tell."""

    status, type, code, is_final = 404, "not_found_error", "not_found", True

    def __init__(self, kind: str, id: str) -> None:
        super().__init__(f"{kind} with id '{id[:_MAX_SHOWN_ID]}' not found.")


class AdminsOnly(ClientError):
    status, type, code, is_final = 403, "permission_error", "admins_only", True

    def __init__(self, method: str, path: str) -> None:
        super().__init__(f"only administrators may change this at the AI provider: {method} {path}")


class UpgradeRequired(ClientError):
    """The client asked for a WebSocket. Codex falls back to plain HTTP as soon as it gets 426."""

    status, code = 426, "websocket_not_supported"
    default_message = "WebSockets are not supported: use HTTP"


class ClientDisconnected(ClientError):
    """The client closed the connection. The status is nginx's; only logs show it."""

    status, code, record_type = 499, "client_closed", "client_closed"
    default_message = "the client closed the connection"


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


class GatewayError(BridgeError):
    record_type = "server_error"


class ProviderDisabled(GatewayError):
    status, code, is_final = 503, "provider_disabled", True

    def __init__(self, name: str) -> None:
        super().__init__(f'provider_disabled: AI provider "{name}" is disabled')


class RecordingFailed(GatewayError):
    code = "recording_failed"
    default_message = "the interception could not be recorded, so the request was not sent"


class IdentityUnavailable(GatewayError):
    status, code = 503, "identity_unavailable"
    default_message = "the gateway token cannot be checked now"


class ConfigError(GatewayError):
    """A setting is missing or wrong; the message names its full path and the expected value."""

    code = "config_error"


def _format_size(size: int) -> str:
    """Returns a size in bytes in the largest unit that divides it.

    >>> _format_size(33554432), _format_size(1536)
    ('32MiB', '1536B')
    """
    for unit, weight in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size % weight == 0 and size:
            return f"{size // weight}{unit}"
    return f"{size}B"
