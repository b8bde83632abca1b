"""Errors of the bridge itself."""

from __future__ import annotations

from .base import BridgeError


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
    """Settings are missing or wrong; a line for each names its full path and the expected value."""

    code = "config_error"

    def __init__(self, *lines: str) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines
