"""The attempts at one request, up to the head of the answer that counts: keys times retries, each
admitted by the breaker. Nothing has gone to the client yet.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from time import monotonic, sleep

from msgspec import Struct

from ..errors import UpstreamRefused
from ..headers import find
from ..model import Answer, Outgoing
from ..waiting import Client
from .breaker import Breakers
from .keys import Credential, Keys, retry_after
from .transport import Sender

_FIRST_PAUSE, _LAST_PAUSE = 0.5, 8.0
_LONGEST_PAUSE = 60.0
_LOOK = 0.5
_PASSING = (408, 409)
Prepare = Callable[[Outgoing], Outgoing]
Decode = Callable[[Outgoing, Answer], Answer]


class Sent(Struct, frozen=True):
    """The answer, and the credential that it came to."""

    answer: Answer
    credential: Credential


class Attempts:
    """One provider's. `prepare` has the last word on a request, `decode` the first on its answer."""

    def __init__(
        self, transport: Sender, breakers: Breakers, max_retries: int, prepare: Prepare, decode: Decode
    ) -> None:
        self._transport, self._breakers, self._max_retries = transport, breakers, max_retries
        self._prepare, self._decode = prepare, decode

    def send(self, outgoing: Outgoing, keys: Keys, endpoint: str, scope: str, client: Client) -> Sent:
        """Asks with one key after the other; `endpoint` is empty where no breaker stands.

        Raises UpstreamError, ClientGone.
        """
        for credential in keys.offers(scope):
            answer = self._persist(_with(outgoing, credential), endpoint, scope, client)
            if not keys.rests(credential, scope, answer.status, answer.headers):
                return Sent(answer, credential)
            answer.close()
        raise keys.exhausted(scope)

    def _persist(self, outgoing: Outgoing, endpoint: str, model: str, client: Client) -> Answer:
        """Asks again, `max_retries` times, where that may mend it. A request is never repeated after
        a time-out, nor when its connection broke: the upstream may have begun to work on it."""
        for count in range(self._max_retries):
            pause = min(_FIRST_PAUSE * 2**count, _LAST_PAUSE) * random.uniform(0.75, 1)  # noqa: S311
            try:
                answer = self._once(outgoing, endpoint, model, client)
            except UpstreamRefused:
                _wait(pause, client)
                continue
            if not _may_pass(answer):
                return answer
            told = retry_after(answer.headers, pause)
            answer.close()
            _wait(told if told <= _LONGEST_PAUSE else pause, client)
        return self._once(outgoing, endpoint, model, client)

    def _once(self, outgoing: Outgoing, endpoint: str, model: str, client: Client) -> Answer:
        prepared = self._prepare(outgoing)
        if not endpoint:
            return self._decode(prepared, self._transport.send(prepared, client))
        with self._breakers.attempt(endpoint, model) as attempt:
            answer = self._decode(prepared, self._transport.send(prepared, client))
            attempt.answered(answer.status)
        return answer


def _with(outgoing: Outgoing, credential: Credential) -> Outgoing:
    if not credential.header[0]:
        return outgoing
    headers = (*outgoing.headers, credential.header)
    return Outgoing(outgoing.method, outgoing.url, headers, outgoing.body, outgoing.id, outgoing.model)


def _may_pass(answer: Answer) -> bool:
    """The upstream may do better when asked again, and does not say otherwise."""
    passing = answer.status in _PASSING or answer.status >= 500
    return passing and find(answer.headers, "x-should-retry").lower() != "false"


def _wait(seconds: float, client: Client) -> None:
    end = monotonic() + seconds
    while (left := end - monotonic()) > 0:
        client.during(lambda left=left: sleep(min(left, _LOOK)))  # type: ignore[misc]
        client.check()
