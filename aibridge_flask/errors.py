"""One tree of errors. Each says who is to blame, and answers in the API's own JSON.

BridgeError
+-- ClientError              the request cannot be served as it came
|   +-- BadBody, BodyTooLarge, UnsupportedEncoding, BackgroundNotSupported
|   +-- MissingCredential, ByokDisabled, NotLocal, UntrustedProxy, Unauthorized
|   +-- UnknownRoute, UnknownProvider, UpgradeRequired
|   +-- ClientGone           nobody is left to answer
+-- UpstreamError            the provider failed
|   +-- UpstreamUnreachable, UpstreamRefused, UpstreamTimeout
|   +-- UpstreamCut          its answer broke off
|   +-- CredentialsUnavailable  nothing to sign the request with
|   +-- TurnFailed, TooManyRounds  it went wrong after tools were run
|   +-- CircuitOpen, AllKeysRateLimited, AllKeysRefused
|   +-- ToolError            an MCP server failed, or refused; the model is told, not the client
+-- GatewayError             we failed
    +-- ProviderDisabled, RecordingFailed, IdentityUnavailable
    +-- ConfigError          the bridge does not start
"""

from __future__ import annotations

from math import ceil
from typing import ClassVar


class BridgeError(Exception):
    """`status` is the HTTP status, `type` and `code` are the API's words, `record_type` is the
    record's `error_type`; `final` tells clients that asking again cannot mend it, `retry_after`
    (seconds, 0 for nothing) when it may. `openai_type` is OpenAI's word where it differs."""

    status: ClassVar[int] = 500
    type: str = "api_error"
    code: str = "internal_error"
    record_type: str = "unknown"
    final: ClassVar[bool] = False
    text: ClassVar[str] = "internal error"
    openai_type: ClassVar[str] = ""
    retry_after = 0
    recorded = False
    """It was told of as an interception or a passthrough."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or self.text)

    @property
    def message(self) -> str:
        return str(self.args[0])

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        if self.retry_after:
            return (("Retry-After", str(self.retry_after)),)
        return (("x-should-retry", "false"),) if self.final else ()


class ClientError(BridgeError):
    status, type, code = 400, "invalid_request_error", "invalid_request"
    record_type = "bad_request"


class InvalidBody(ClientError):
    """The body is empty, no JSON, or no JSON object."""

    code = "invalid_json"


class BodyTooLarge(ClientError):
    status, type, code, final = 413, "request_too_large", "request_too_large", True

    def __init__(self, limit: int) -> None:
        super().__init__(f"Request body too large. The maximum allowed request body size is {_size(limit)}.")


class UnsupportedEncoding(ClientError):
    status, code, final = 415, "unsupported_encoding", True


class BackgroundNotSupported(ClientError):
    status, code, final = 501, "background_not_supported", True
    text = "background responses are not supported: leave `background` out or set it to false"


class MissingCredential(ClientError):
    status, type, code, final = 401, "authentication_error", "missing_credential", True
    record_type = "unauthorized"


class Unauthorized(ClientError):
    """The actor could not be told."""

    status, type, code, final = 401, "authentication_error", "invalid_gateway_token", True
    record_type = "unauthorized"
    text = "the gateway token is missing or not valid"


class ByokDisabled(ClientError):
    status, type, code, final = 403, "permission_error", "byok_disabled", True
    text = "your own API keys are not accepted here: send none, and the central key is used"


class NotLocal(ClientError):
    status, type, code, final = 403, "permission_error", "local_only", True
    text = (
        "this bridge serves direct loopback callers only: set auth.mode to"
        ' "token" or "header" to let others in'
    )


class UntrustedProxy(ClientError):
    status, type, code, final = 403, "permission_error", "untrusted_proxy", True
    text = "this peer may not name the user: add it to auth.trusted_proxies if it is your proxy"


class UnknownRoute(ClientError):
    status, type, code, final = 404, "not_found_error", "route_not_supported", True

    def __init__(self, method: str, path: str) -> None:
        super().__init__(f"route not supported: {method} {path}")


class UnknownProvider(ClientError):
    status, type, code, final = 404, "not_found_error", "provider_not_found", True

    def __init__(self, name: str) -> None:
        super().__init__(f'provider_not_found: there is no AI provider "{name}"')


class UpgradeRequired(ClientError):
    """A WebSocket was asked for; Codex goes on over plain HTTP at once when it sees 426."""

    status, code = 426, "websocket_not_supported"
    text = "WebSockets are not supported: use HTTP"


class ClientDisconnected(ClientError):
    """The client has left. The status is nginx's, and for logs alone."""

    status, code, record_type = 499, "client_closed", "client_closed"
    text = "the client closed the connection"


class UpstreamError(BridgeError):
    status, code, record_type = 502, "upstream_error", "server_error"


class UpstreamUnreachable(UpstreamError):
    code = "upstream_unreachable"
    text = "the AI provider could not be reached"


class UpstreamConnectionFailed(UpstreamUnreachable):
    """No connection came about, so that nothing was sent: asking again costs nothing."""


class UpstreamTimeout(UpstreamError):
    status, code, record_type = 504, "upstream_timeout", "timeout"
    text = "the AI provider did not answer in time"


class UpstreamCut(UpstreamError):
    code = "upstream_cut"
    text = "the AI provider's answer broke off"


class FollowUpFailed(UpstreamError):
    """The upstream refused to go on with a stream that has begun; the words are its own."""

    def __init__(self, type: str, code: str, message: str, record_type: str) -> None:
        super().__init__(message)
        self.type, self.code, self.record_type = type or self.type, code or self.code, record_type


class TooManyRounds(UpstreamError):
    code, record_type = "tool_rounds_exceeded", "server_error"

    def __init__(self, limit: int) -> None:
        super().__init__(f"tool_rounds_exceeded: the model still asks for tools after {limit} rounds")


class CredentialsUnavailable(UpstreamError):
    """The cloud's credentials, which change by themselves, could not be had."""

    code, record_type = "credentials_unavailable", "unauthorized"
    text = "the AI provider's credentials cannot be had now. Contact your administrator"


class CircuitOpen(UpstreamError):
    """The breaker keeps requests from an upstream that has failed."""

    status, type, code, record_type = 503, "overloaded_error", "service_unavailable", "overloaded"
    openai_type = "server_error"
    text = "circuit breaker is open"

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
    text = "all configured keys failed authentication. Contact your administrator"


class ToolError(UpstreamError):
    code = "tool_error"
    text = "the MCP server failed"


class GatewayError(BridgeError):
    record_type = "server_error"


class ProviderDisabled(GatewayError):
    status, code, final = 503, "provider_disabled", True

    def __init__(self, name: str) -> None:
        super().__init__(f'provider_disabled: AI provider "{name}" is disabled')


class RecordingFailed(GatewayError):
    code = "recording_failed"
    text = "the interception could not be recorded, so the request was not sent"


class IdentityUnavailable(GatewayError):
    status, code = 503, "identity_unavailable"
    text = "the gateway token cannot be checked now"


class ConfigError(GatewayError):
    """A setting is missing or wrong; the message names its full path and what was expected."""

    code = "config_error"


def _size(count: int) -> str:
    """
    >>> _size(33554432), _size(1536)
    ('32MiB', '1536B')
    """
    for unit, weight in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count % weight == 0 and count:
            return f"{count // weight}{unit}"
    return f"{count}B"
