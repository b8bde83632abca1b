"""Errors of the client: the request cannot be served as it came."""

from __future__ import annotations

from datetime import UTC, datetime
from math import ceil
from time import time

from .base import BridgeError

_MAX_SHOWN_ID = 100


class ClientError(BridgeError):
    status, type, code = 400, "invalid_request_error", "invalid_request"
    record_type = "bad_request"


class InvalidBody(ClientError):
    """The body is empty, not JSON, or not a JSON object."""

    code = "invalid_json"


class InvalidHost(ClientError):
    code, is_final = "invalid_host", True
    default_message = "the header Host is missing or names no host"


class BodyTooLarge(ClientError):
    status, type, code, is_final = 413, "request_too_large", "request_too_large", True

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"Request body too large. The maximum allowed request body size is {_format_size(limit)}."
        )


class AbsurdRatio(ClientError):
    """A small body that decodes to a large one: no client compresses that well."""

    status, type, code, is_final = 413, "request_too_large", "request_too_large", True
    default_message = "Request body too large. Decoded, it is many times as large as what was sent."


class RequestTimeout(ClientError):
    status, code = 408, "request_timeout"
    default_message = "the request body did not arrive in time"
    record_type = "timeout"


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


class TokenInUrl(ClientError):
    """The URL would reach the provider, and logs on the way."""

    code, is_final = "gateway_token_in_url", True
    default_message = "the URL holds a gateway token: send it in the header X-AIBridge-Token"


class ByokDisabled(ClientError):
    status, type, code, is_final = 403, "permission_error", "byok_disabled", True
    default_message = "your own API keys are not accepted here: send none, and the central key is used"


class NotLocal(ClientError):
    status, type, code, is_final = 403, "permission_error", "local_only", True
    default_message = (
        "this bridge serves direct loopback callers only, and no web pages of others: set auth.mode to"
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


class SessionStopped(ClientError):
    """An administrator has stopped the session. Clients take it for a used-up limit, and do not ask again."""

    status, type, code, is_final = 429, "billing_error", "insufficient_quota", True
    openai_type, record_type = "usage_limit_reached", "policy"

    def __init__(self, resets_at: float) -> None:
        """`resets_at` is in seconds since 1970."""
        self.resets_at = ceil(resets_at)
        self.retry_after = max(1, ceil(resets_at - time()))
        until = datetime.fromtimestamp(self.resets_at, UTC)
        super().__init__(f"an administrator has stopped this session, until {until:%H:%M:%S} UTC")

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Codex shows the words of its own header instead of its advice to buy more."""
        never = ("x-should-retry", "false")
        return (("Retry-After", str(self.retry_after)), never, ("x-codex-promo-message", self.message))


class ClientDisconnected(ClientError):
    """The client closed the connection. The status is nginx's; only logs show it."""

    status, code, record_type = 499, "client_closed", "client_closed"
    default_message = "the client closed the connection"


def _format_size(size: int) -> str:
    """Returns a size in bytes in the largest unit that divides it.

    >>> _format_size(33554432), _format_size(1536)
    ('32MiB', '1536B')
    """
    for unit, weight in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size % weight == 0 and size:
            return f"{size // weight}{unit}"
    return f"{size}B"
