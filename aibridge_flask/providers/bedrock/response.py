"""Converts Bedrock's responses to Anthropic's: event stream, errors, token counts.

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
from ...model import HeaderList
from ...protocols import UpstreamResponse

_EVENT_STREAM = "application/vnd.amazon.eventstream"
_METRICS = "amazon-bedrock-invocationMetrics"
_METRICS_BYTES = _METRICS.encode()
_BODY_LIMIT = 1 << 20
_LINE_BREAKS_TO_SPACES = str.maketrans("\r\n", "  ")

# Bedrock's exceptions in lower case, with status and error type of Anthropic's API:
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
# AWS refuses the bridge's credentials. The message may contain what was signed:
# https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html
_UNAUTHORIZED_ERRORS = (
    "unrecognizedclientexception", "invalidsignatureexception", "signaturedoesnotmatch",
    "incompletesignature", "incompletesignatureexception", "invalidclienttokenid",
    "missingauthenticationtoken", "missingauthenticationtokenexception", "expiredtoken",
    "expiredtokenexception", "requestexpired", "notauthorized",
)  # fmt: skip
_TYPE_BY_STATUS = {
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
_REFUSAL_STATUSES = (400, 403, 404)


def decode(response: UpstreamResponse, is_count: bool) -> UpstreamResponse:
    """Returns the response as Anthropic's API would send it.

    `is_count`: the request was to count tokens. Not all models and accounts can, so a refusal becomes a 404.
    """
    headers = _with_request_id(response.headers)
    if not 200 <= response.status < 300:
        status, kind = _status_and_type(response)
        if is_count and status in _REFUSAL_STATUSES:
            status, kind = 404, "not_found_error"
        return _TranslatedResponse(
            response, status, headers, lambda data: _error_body(kind, _message(data), headers)
        )
    if is_count:
        return _TranslatedResponse(response, response.status, headers, _count_body)
    if find(response.headers, "content-type").lower().startswith(_EVENT_STREAM):
        return _StreamedResponse(response, headers)
    return _UnchangedResponse(response, response.status, headers)


def _with_request_id(headers: HeaderList) -> HeaderList:
    """Adds the request's id under the name that Anthropic's clients read."""
    id = find(headers, "x-amzn-requestid")
    return (*headers, ("request-id", id)) if id and not find(headers, "request-id") else headers


def _status_and_type(response: UpstreamResponse) -> tuple[int, str]:
    """Returns status and error type of Anthropic's API for an error response of Bedrock."""
    name = find(response.headers, "x-amzn-errortype").partition(":")[0].rpartition("#")[2].lower()
    if name in _UNAUTHORIZED_ERRORS:
        return 401, "authentication_error"
    return _ERRORS.get(name, (response.status, _TYPE_BY_STATUS.get(response.status, "api_error")))


class _UnchangedResponse:
    """A response with its body unchanged."""

    def __init__(self, inner: UpstreamResponse, status: int, headers: HeaderList) -> None:
        self._inner, self.status, self.headers = inner, status, headers
        self.close = inner.close

    @property
    def complete(self) -> bool:
        return self._inner.complete

    def iter_body(self, idle_interval: float) -> Iterator[bytes]:
        return self._inner.iter_body(idle_interval)


class _TranslatedResponse(_UnchangedResponse):
    """A response whose body is translated once all of it has arrived."""

    def __init__(
        self, inner: UpstreamResponse, status: int, headers: HeaderList, translate: Callable[[bytes], bytes]
    ) -> None:
        super().__init__(inner, status, _with_content_type(headers, "application/json"))
        self._translate, self._is_sent = translate, False

    @property
    def complete(self) -> bool:
        return self._is_sent

    def iter_body(self, idle_interval: float) -> Iterator[bytes]:
        data = b""
        for piece in self._inner.iter_body(idle_interval):
            data = (data + piece)[:_BODY_LIMIT]
            if not piece:
                yield b""
        self._is_sent = True
        yield self._translate(data)


class _StreamedResponse(_UnchangedResponse):
    """A response whose frames become server-sent events. A damaged or cut frame raises UpstreamCut."""

    def __init__(self, inner: UpstreamResponse, headers: HeaderList) -> None:
        from botocore.eventstream import EventStreamBuffer, ParserError

        super().__init__(inner, inner.status, _with_content_type(headers, "text/event-stream; charset=utf-8"))
        self._frames: Any = EventStreamBuffer()
        self._frame_errors = (ParserError, KeyError, ValueError, struct.error, msgspec.MsgspecError)
        self._pending_bytes = 0
        self._request_id = find(headers, "request-id")

    @property
    def complete(self) -> bool:
        return self._inner.complete and not self._pending_bytes

    def iter_body(self, idle_interval: float) -> Iterator[bytes]:
        for piece in self._inner.iter_body(idle_interval):
            if not piece:
                yield b""
                continue
            events, is_readable = self._events(piece)
            if events:
                yield events
            if not is_readable:
                raise UpstreamCut
        if self._pending_bytes:
            raise UpstreamCut

    def _events(self, piece: bytes) -> tuple[bytes, bool]:
        """Returns the events that a piece completes, and whether all of it could be read."""
        self._pending_bytes += len(piece)
        events: list[bytes] = []
        try:
            self._frames.add_data(piece)
            for frame in self._frames:
                self._pending_bytes -= frame.prelude.total_length
                events.append(self._event(frame))
        except self._frame_errors:
            self._pending_bytes = max(1, self._pending_bytes)  # also if the frame is whole but holds no event
            return b"".join(events), False
        return b"".join(events), True

    def _event(self, frame: Any) -> bytes:
        headers = frame.headers
        if headers.get(":message-type") == "event":
            return _chunk_event(frame.payload) if headers.get(":event-type") == "chunk" else b""
        name = str(headers.get(":exception-type") or headers.get(":error-code") or "").lower()
        message = str(headers.get(":error-message") or "") or _message(frame.payload)
        kind = _ERRORS.get(name, (500, "api_error"))[1]
        return sse.encode("error", _error_body(kind, message, (("request-id", self._request_id),)))


class _Part(msgspec.Struct):
    bytes: str


class _Typed(msgspec.Struct):
    type: str = ""


def _chunk_event(payload: bytes) -> bytes:
    """Returns one of Anthropic's events with the model's own bytes, except Bedrock's metrics in the last one.

    Raises ValueError, MsgspecError.
    """
    data = base64.b64decode(msgspec.json.decode(payload, type=_Part).bytes, validate=True)
    if _METRICS_BYTES in data:
        data = _without_metrics(data)
    if b"\n" in data or b"\r" in data:  # between JSON tokens: a JSON string cannot contain a line break
        data = data.replace(b"\n", b" ").replace(b"\r", b" ")
    try:
        name = msgspec.json.decode(data, type=_Typed).type
    except (msgspec.MsgspecError, UnicodeError):
        name = body.get_string(body.loads(data), "type")
    return sse.encode(name.translate(_LINE_BREAKS_TO_SPACES), data)


def _without_metrics(data: bytes) -> bytes:
    try:
        members = body.split_members(data)
    except InvalidBody:
        return data
    return data if members.pop(_METRICS, None) is None else body.join_members(members)


def _with_content_type(headers: HeaderList, content_type: str) -> HeaderList:
    replaced = ("content-type", "content-length", "content-encoding")
    return (
        ("Content-Type", content_type),
        *((name, value) for name, value in headers if name.lower() not in replaced),
    )


def _message(data: bytes) -> str:
    error = body.loads(data)
    message = body.get_string(error, "message") or body.get_string(error, "Message")
    return message or "the AI provider gave no reason"


def _error_body(kind: str, message: str, headers: HeaderList) -> bytes:
    error: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": message}}
    id = find(headers, "request-id")
    return body.dumps({**error, "request_id": id} if id else error)


def _count_body(data: bytes) -> bytes:
    return body.dumps({"input_tokens": body.get_count(body.loads(data), "inputTokens")})
