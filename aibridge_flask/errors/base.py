"""The root of the tree of errors."""

from __future__ import annotations

from typing import ClassVar


class BridgeError(Exception):
    """Base of all errors of the bridge.

    `status` is the HTTP status; `type` and `code` are the API's words, `openai_type` is OpenAI's `type` if it
    differs; `record_type` is the record's `error_type`. `is_final`: a retry cannot succeed, and a header says
    so. `retry_after` is in seconds, 0 if unknown; `resets_at` is when a refusal ends, in seconds since 1970.
    """

    status: ClassVar[int] = 500
    type: str = "api_error"
    code: str = "internal_error"
    record_type: str = "unknown"
    is_final: ClassVar[bool] = False
    default_message: ClassVar[str] = "internal error"
    openai_type: ClassVar[str] = ""
    retry_after = 0
    resets_at = 0
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
