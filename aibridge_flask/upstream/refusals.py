"""Whether a response is about the key that was sent, and not about the request."""

from __future__ import annotations

from msgspec import Struct

from ..formats import parse_error
from ..headers import is_event_stream
from ..protocols import UpstreamResponse
from .buffered import BufferedResponse

RATE_LIMITED, UNAUTHORIZED = "rate_limited", "unauthorized"
# An account without credit, in the words of Anthropic, OpenAI, DeepSeek and OpenRouter.
_CREDIT_STATUSES = frozenset((400, 402, 403, 429))
_CREDIT_TYPES = frozenset(("insufficient_quota", "billing_error"))
_CREDIT_SENTENCES = (
    "your credit balance is too low",
    "you exceeded your current quota",
    "insufficient balance",
    "insufficient credits",
)


class Refusal(Struct, frozen=True):
    """Why a key was refused, and the provider's own words. Without a reason it was not."""

    reason: str = ""
    words: str = ""


def unauthorized(response: UpstreamResponse) -> tuple[UpstreamResponse, Refusal]:
    """Returns the response, which may have been read in part, and its refusal if it is a 401.

    Raises ClientDisconnected.
    """
    if response.status != 401:
        return response, Refusal()
    buffered = BufferedResponse(response)
    return buffered, Refusal(UNAUTHORIZED, parse_error(buffered.beginning)[2])


def of_a_key(response: UpstreamResponse) -> tuple[UpstreamResponse, Refusal]:
    """As `unauthorized`; a rate limit and an account without credit are refusals, too."""
    if response.status not in _CREDIT_STATUSES or is_event_stream(response.headers):
        return unauthorized(response)
    buffered = BufferedResponse(response)
    type, code, words = parse_error(buffered.beginning)
    if {type, code} & _CREDIT_TYPES or words.lower().startswith(_CREDIT_SENTENCES):
        return buffered, Refusal(UNAUTHORIZED, words)
    return buffered, Refusal(RATE_LIMITED if response.status == 429 else "", words)
