"""The attempts at one request, up to the head of the response that counts: for each key, retries.

A circuit breaker admits each attempt. Nothing has been sent to the client yet.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from msgspec import Struct

from ..errors import UpstreamConnectionFailed
from ..headers import find
from ..model import UpstreamRequest
from ..protocols import UpstreamResponse
from ..waiting import Client, pause
from .breaker import Breakers
from .keys import Credential, CredentialSource, retry_after
from .refusals import UNAUTHORIZED, Refusal
from .transport import Sender

_MIN_PAUSE, _MAX_PAUSE = 0.5, 8.0  # seconds between retries, growing
_MAX_RETRY_AFTER = 60.0  # seconds; a longer `Retry-After` is not waited for
_TRANSIENT = (408, 409)
Prepare = Callable[[UpstreamRequest], UpstreamRequest]
Decode = Callable[[UpstreamRequest, UpstreamResponse], UpstreamResponse]


class Attempted(Struct, frozen=True):
    """A response, and the credential that was sent."""

    response: UpstreamResponse
    credential: Credential


class Attempts:
    """The attempts of one provider. `prepare` is applied to each request, `decode` to each response."""

    def __init__(
        self, sender: Sender, breakers: Breakers, max_retries: int, prepare: Prepare, decode: Decode
    ) -> None:
        self._sender, self._breakers, self._max_retries = sender, breakers, max_retries
        self._prepare, self._decode = prepare, decode

    def send(
        self,
        request: UpstreamRequest,
        credentials: CredentialSource,
        endpoint: str,
        scope: str,
        client: Client,
        on_attempt: Callable[[], None] = lambda: None,
    ) -> Attempted:
        """Tries one credential after the other; returns the first response that is not about the credential.

        `scope` is the model, or PASSTHROUGH. Without `endpoint` there is no circuit breaker. `on_attempt` is
        called before each request to the upstream.
        Raises UpstreamError, ClientDisconnected.
        """
        refused: list[tuple[Credential, Refusal]] = []
        for credential in credentials.candidates(scope):
            own = _with_credential(request, credential)
            sent = self._send_with_retries(own, endpoint, scope, client, on_attempt)
            response, refusal = credentials.examine(sent)
            if refusal.reason == UNAUTHORIZED:  # perhaps because of the request: then no key does better
                refused.append((credential, refusal))
            else:
                for other, _ in refused:
                    credentials.rest(other, scope, UNAUTHORIZED)
                refused.clear()
                if not refusal.reason:
                    return Attempted(response, credential)
                credentials.rest(credential, scope, refusal.reason, response.headers)
            response.close()
        words = [credential.mask(refusal.words) for credential, refusal in refused]
        raise credentials.exhausted_error(scope, words)

    def _send_with_retries(
        self,
        request: UpstreamRequest,
        endpoint: str,
        model: str,
        client: Client,
        on_attempt: Callable[[], None],
    ) -> UpstreamResponse:
        """Retries up to `max_retries` times where a retry may help.

        Never after a time-out or a broken connection: the upstream may have begun to process the request.
        """
        send = partial(self._send_once, request, endpoint, model, client, on_attempt)
        for retry in range(self._max_retries):
            seconds = min(_MIN_PAUSE * 2**retry, _MAX_PAUSE) * random.uniform(0.75, 1)  # noqa: S311
            try:
                response = send()
            except UpstreamConnectionFailed:
                pause(seconds, client)
                continue
            if not _is_transient(response):
                return response
            wanted = retry_after(response.headers, seconds)
            response.close()
            pause(wanted if wanted <= _MAX_RETRY_AFTER else seconds, client)
        return send()

    def _send_once(
        self,
        request: UpstreamRequest,
        endpoint: str,
        model: str,
        client: Client,
        on_attempt: Callable[[], None],
    ) -> UpstreamResponse:
        prepared = self._prepare(request)
        if not endpoint:
            return self._decode(prepared, self._sender.send(prepared, client))
        with self._breakers.attempt(endpoint, model) as attempt:
            on_attempt()
            response = self._decode(prepared, self._sender.send(prepared, client))
            attempt.report_status(response.status)
        return response


def _with_credential(request: UpstreamRequest, credential: Credential) -> UpstreamRequest:
    if not credential.header[0]:
        return request
    headers = (*request.headers, credential.header)
    return UpstreamRequest(request.method, request.url, headers, request.body, request.id, request.model)


def _is_transient(response: UpstreamResponse) -> bool:
    """Whether a retry may succeed, unless the upstream says otherwise."""
    is_transient = response.status in _TRANSIENT or response.status >= 500
    return is_transient and find(response.headers, "x-should-retry").lower() != "false"
