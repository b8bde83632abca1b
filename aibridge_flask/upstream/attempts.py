"""The attempts at one request, up to the head of the answer that counts: keys times retries, each
admitted by the breaker. Nothing has gone to the client yet.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from time import monotonic, sleep

from msgspec import Struct

from ..errors import UpstreamConnectionFailed
from ..headers import find
from ..model import UpstreamRequest, UpstreamResponse
from ..waiting import Client
from .breaker import Breakers
from .keys import Credential, CredentialSource, retry_after
from .transport import Sender

_FIRST_PAUSE, _LAST_PAUSE = 0.5, 8.0
_LONGEST_PAUSE = 60.0
_LOOK = 0.5
_PASSING = (408, 409)
Prepare = Callable[[UpstreamRequest], UpstreamRequest]
Decode = Callable[[UpstreamRequest, UpstreamResponse], UpstreamResponse]


class Attempted(Struct, frozen=True):
    """The answer, and the credential that it came to."""

    response: UpstreamResponse
    credential: Credential


class Attempts:
    """One provider's. `prepare` has the last word on a request, `decode` the first on its answer."""

    def __init__(
        self, transport: Sender, breakers: Breakers, max_retries: int, prepare: Prepare, decode: Decode
    ) -> None:
        self._transport, self._breakers, self._max_retries = transport, breakers, max_retries
        self._prepare, self._decode = prepare, decode

    def send(
        self, outgoing: UpstreamRequest, keys: CredentialSource, endpoint: str, scope: str, client: Client
    ) -> Attempted:
        """Asks with one key after the other; `endpoint` is empty where no breaker stands.

        Raises UpstreamError, ClientGone.
        """
        for credential in keys.candidates(scope):
            response = self._persist(_with(outgoing, credential), endpoint, scope, client)
            if not keys.report_status(credential, scope, response.status, response.headers):
                return Attempted(response, credential)
            response.close()
        raise keys.exhausted_error(scope)

    def _persist(
        self, outgoing: UpstreamRequest, endpoint: str, model: str, client: Client
    ) -> UpstreamResponse:
        """Asks again, `max_retries` times, where that may mend it. A request is never repeated after
        a time-out, nor when its connection broke: the upstream may have begun to work on it."""
        for count in range(self._max_retries):
            pause = min(_FIRST_PAUSE * 2**count, _LAST_PAUSE) * random.uniform(0.75, 1)  # noqa: S311
            try:
                response = self._once(outgoing, endpoint, model, client)
            except UpstreamConnectionFailed:
                _wait(pause, client)
                continue
            if not _may_pass(response):
                return response
            told = retry_after(response.headers, pause)
            response.close()
            _wait(told if told <= _LONGEST_PAUSE else pause, client)
        return self._once(outgoing, endpoint, model, client)

    def _once(self, outgoing: UpstreamRequest, endpoint: str, model: str, client: Client) -> UpstreamResponse:
        prepared = self._prepare(outgoing)
        if not endpoint:
            return self._decode(prepared, self._transport.send(prepared, client))
        with self._breakers.attempt(endpoint, model) as attempt:
            response = self._decode(prepared, self._transport.send(prepared, client))
            attempt.report_status(response.status)
        return response


def _with(outgoing: UpstreamRequest, credential: Credential) -> UpstreamRequest:
    if not credential.header[0]:
        return outgoing
    headers = (*outgoing.headers, credential.header)
    return UpstreamRequest(outgoing.method, outgoing.url, headers, outgoing.body, outgoing.id, outgoing.model)


def _may_pass(response: UpstreamResponse) -> bool:
    """The upstream may do better when asked again, and does not say otherwise."""
    passing = response.status in _PASSING or response.status >= 500
    return passing and find(response.headers, "x-should-retry").lower() != "false"


def _wait(seconds: float, client: Client) -> None:
    end = monotonic() + seconds
    while (left := end - monotonic()) > 0:
        client.wait_for(lambda left=left: sleep(min(left, _LOOK)))  # type: ignore[misc]
        client.check()
