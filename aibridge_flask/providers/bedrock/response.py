"""Bedrock's answers -> Anthropic's: event stream, errors, counted tokens.

The binary framing: https://smithy.io/2.0/aws/amazon-eventstream.html
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from ... import sse
from ...errors import InvalidBody, UpstreamCut
from ...formats import body
from ...headers import find
from ...model import HeaderList, UpstreamResponse

_EVENT_STREAM = "application/vnd.amazon.eventstream"
_METRICS = "amazon-bedrock-invocationMetrics"
_METRICS_BYTES = _METRICS.encode()
_BODY_LIMIT = 1 << 20
_UNSAFE = str.maketrans("\r\n", "  ")

# An exception of Bedrock's in lower case -> status and type of Anthropic's API:
# https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModelWithResponseStream.html
# https://docs.anthropic.com/en/api/errors
_ERRORS = {
    "accessdeniedexception": (403, "permission_error"),
    "internalserverexception": (500, "api_error"),
    "modelerrorexception": (500, "api_error"),
    "modelnotreadyexception": (503, "overloaded_error"),
    "modelstreamerrorexception": (500, "api_error"),
    "modeltimeoutexception": (504, "timeout_error"),
    "resourcenotfoundexception": (404, "not_found_error"),
    "servicequotaexceededexception": (429, "rate_limit_error"),
    "serviceunavailableexception": (503, "overloaded_error"),
    "throttlingexception": (429, "rate_limit_error"),
    "validationexception": (400, "invalid_request_error"),
}
# The bridge's own credentials are not accepted; the message may hold what was signed:
# https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html
_UNAUTHORIZED = (
    "unrecognizedclientexception", "invalidsignatureexception", "signaturedoesnotmatch",
    "incompletesignature", "incompletesignatureexception", "invalidclienttokenid",
    "missingauthenticationtoken", "missingauthenticationtokenexception", "expiredtoken",
    "expiredtokenexception", "requestexpired", "notauthorized",
)  # fmt: skip
_BY_STATUS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_REFUSING = (400, 403, 404)


def decode(answer: UpstreamResponse, counted: bool) -> UpstreamResponse:
    """What an Anthropic client understands; `counted` where tokens were to be counted, which not all
    models and accounts may."""
    headers = _named(answer.headers)
    if not 200 <= answer.status < 300:
        status, kind = _translated(answer)
        if counted and status in _REFUSING:
            status, kind = 404, "not_found_error"
        return _TranslatedResponse(
            answer, status, headers, lambda found: _error(kind, _message(found), headers)
        )
    if counted:
        return _TranslatedResponse(answer, answer.status, headers, _count)
    if find(answer.headers, "content-type").lower().startswith(_EVENT_STREAM):
        return _StreamedResponse(answer, headers)
    return _UnchangedResponse(answer, answer.status, headers)


def _named(told: HeaderList) -> HeaderList:
    """Anthropic's clients look for the request's id under Anthropic's name."""
    id = find(told, "x-amzn-requestid")
    return (*told, ("request-id", id)) if id and not find(told, "request-id") else told


def _translated(answer: UpstreamResponse) -> tuple[int, str]:
    name = find(answer.headers, "x-amzn-errortype").partition(":")[0].rpartition("#")[2].lower()
    if name in _UNAUTHORIZED:
        return 401, "authentication_error"
    return _ERRORS.get(name, (answer.status, _BY_STATUS.get(answer.status, "api_error")))


class _UnchangedResponse:
    """The body as it is."""

    def __init__(self, inner: UpstreamResponse, status: int, headers: HeaderList) -> None:
        self._inner, self.status, self.headers = inner, status, headers
        self.close = inner.close

    @property
    def complete(self) -> bool:
        return self._inner.complete

    def iter_body(self, idle_interval: float) -> Iterator[bytes]:
        return self._inner.iter_body(idle_interval)


class _TranslatedResponse(_UnchangedResponse):
    """The body in other words, once it is whole."""

    def __init__(
        self, inner: UpstreamResponse, status: int, headers: HeaderList, reword: Callable[[bytes], bytes]
    ) -> None:
        super().__init__(inner, status, _as(headers, "application/json"))
        self._reword, self._given = reword, False

    @property
    def complete(self) -> bool:
        return self._given

    def iter_body(self, idle_interval: float) -> Iterator[bytes]:
        found = b""
        for piece in self._inner.iter_body(idle_interval):
            found = (found + piece)[:_BODY_LIMIT]
            if not piece:
                yield b""
        self._given = True
        yield self._reword(found)


class _StreamedResponse(_UnchangedResponse):
    """Frames -> server-sent events. A frame that is damaged or cut is an answer that broke off."""

    def __init__(self, inner: UpstreamResponse, headers: HeaderList) -> None:
        from botocore.eventstream import EventStreamBuffer, ParserError

        super().__init__(inner, inner.status, _as(headers, "text/event-stream; charset=utf-8"))
        self._frames: Any = EventStreamBuffer()
        self._broken = (ParserError, KeyError, ValueError, struct.error, msgspec.MsgspecError)
        self._behind = 0
        self._request_id = find(headers, "request-id")

    @property
    def complete(self) -> bool:
        return self._inner.complete and not self._behind

    def iter_body(self, idle_interval: float) -> Iterator[bytes]:
        for piece in self._inner.iter_body(idle_interval):
            if not piece:
                yield b""
                continue
            events, whole = self._events(piece)
            if events:
                yield events
            if not whole:
                raise UpstreamCut
        if self._behind:
            raise UpstreamCut

    def _events(self, piece: bytes) -> tuple[bytes, bool]:
        """The events that a piece completes, and whether all of it could be read."""
        self._behind += len(piece)
        found: list[bytes] = []
        try:
            self._frames.add_data(piece)
            for frame in self._frames:
                self._behind -= frame.prelude.total_length
                found.append(self._event(frame))
        except self._broken:
            self._behind = max(1, self._behind)  # a frame that is whole may hold no event
            return b"".join(found), False
        return b"".join(found), True

    def _event(self, frame: Any) -> bytes:
        told = frame.headers
        if told.get(":message-type") == "event":
            return _chunk(frame.payload) if told.get(":event-type") == "chunk" else b""
        name = str(told.get(":exception-type") or told.get(":error-code") or "").lower()
        message = str(told.get(":error-message") or "") or _message(frame.payload)
        kind = _ERRORS.get(name, (500, "api_error"))[1]
        return sse.encode("error", _error(kind, message, (("request-id", self._request_id),)))


class _Part(msgspec.Struct):
    bytes: str


class _Typed(msgspec.Struct):
    type: str = ""


def _chunk(payload: bytes) -> bytes:
    """One of Anthropic's events; its bytes are the model's own, but for Bedrock's metrics at the end.
    Raises ValueError, MsgspecError."""
    data = base64.b64decode(msgspec.json.decode(payload, type=_Part).bytes, validate=True)
    if _METRICS_BYTES in data:
        data = _without_metrics(data)
    if b"\n" in data or b"\r" in data:  # between tokens: a string of JSON holds none
        data = data.replace(b"\n", b" ").replace(b"\r", b" ")
    try:
        name = msgspec.json.decode(data, type=_Typed).type
    except (msgspec.MsgspecError, UnicodeError):
        name = body.get_string(body.loads(data), "type")
    return sse.encode(name.translate(_UNSAFE), data)


def _without_metrics(data: bytes) -> bytes:
    try:
        found = body.split_members(data)
    except InvalidBody:
        return data
    return data if found.pop(_METRICS, None) is None else body.join_members(found)


def _as(headers: HeaderList, kind: str) -> HeaderList:
    changed = ("content-type", "content-length", "content-encoding")
    return (
        ("Content-Type", kind),
        *((name, value) for name, value in headers if name.lower() not in changed),
    )


def _message(found: bytes) -> str:
    told = body.loads(found)
    said = body.get_string(told, "message") or body.get_string(told, "Message")
    return said or "the AI provider gave no reason"


def _error(kind: str, message: str, headers: HeaderList) -> bytes:
    told: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": message}}
    id = find(headers, "request-id")
    return body.dumps({**told, "request_id": id} if id else told)


def _count(found: bytes) -> bytes:
    return body.dumps({"input_tokens": body.get_count(body.loads(found), "inputTokens")})
