"""Which credential a request is sent with: the user's own, or one of the provider's pool of keys."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from time import time
from typing import Protocol

from ..errors import AllKeysRateLimited, AllKeysRefused, BridgeError, MissingCredential
from ..headers import TOKEN_PREFIX, bearer_token, find, mask_secret
from ..hooks import Hooks, KeyCooledDown, KeyCooling, KeysExhausted, KeysTried
from ..model import HeaderList, Secret
from .shared_state import Flag, SharedState

PASSTHROUGH = "\0passthrough"  # a scope that no model's name can be
RATE_LIMITED, UNAUTHORIZED = "rate_limited", "unauthorized"
_EVERYWHERE = "\0"
_REST = 60.0
_LONGEST = 86_400.0
_DIGITS = 10
_SAME = 1.0  # seconds by which answers to the same burst may differ
_CLIP = 256


@dataclass(frozen=True, slots=True)
class Credential:
    """The only object that holds a secret on a request's way; `repr` shows the hint. The header is
    empty where requests are signed instead."""

    kind: str
    hint: str
    header: tuple[str, str] = field(default=("", ""), repr=False)

    def mask(self, text: str) -> str:
        """The text with the hint wherever the secret stands."""
        secret = self.header[1].removeprefix("Bearer ")
        return text.replace(secret, self.hint) if secret else text


class CredentialSource(Protocol):
    """Where a request's credentials come from; `scope` is the model, since limits are per model."""

    @property
    def first(self) -> Credential: ...
    def candidates(self, scope: str) -> Iterator[Credential]:
        """What may be sent now, each once, in their order."""
        ...

    def report_status(self, credential: Credential, scope: str, status: int, headers: HeaderList) -> bool:
        """Hears an answer's head; true if another credential is to be tried."""
        ...

    def exhausted_error(self, scope: str) -> BridgeError:
        """What the client is told when no credential is left."""
        ...


@dataclass(frozen=True, slots=True)
class UserKey:
    """A user's own: sent once, and every answer to it is the user's."""

    first: Credential

    def candidates(self, scope: str) -> Iterator[Credential]:
        yield self.first

    def report_status(self, credential: Credential, scope: str, status: int, headers: HeaderList) -> bool:
        return False

    def exhausted_error(self, scope: str) -> BridgeError:
        return AllKeysRefused()


@dataclass(frozen=True, slots=True)
class RequestSigning:
    """The provider's own, made anew for each attempt: there is no other to try."""

    first: Credential

    def candidates(self, scope: str) -> Iterator[Credential]:
        yield self.first

    def report_status(self, credential: Credential, scope: str, status: int, headers: HeaderList) -> bool:
        return status == 401

    def exhausted_error(self, scope: str) -> BridgeError:
        return AllKeysRefused()


class KeyPool:
    """A provider's central keys. What rests is posted on the board, for all workers to see."""

    def __init__(
        self, provider: str, header: str, keys: tuple[Secret, ...], shared_state: SharedState, hooks: Hooks
    ) -> None:
        self._provider, self._shared_state, self._hooks = provider, shared_state, hooks
        self._credentials = tuple(_central(header, key) for key in keys)
        self._names = tuple(map(_name, self._credentials))
        self._lock = threading.Lock()

    @property
    def first(self) -> Credential:
        return self._credentials[0]

    def __bool__(self) -> bool:
        return bool(self._credentials)

    def candidates(self, scope: str) -> Iterator[Credential]:
        count = 0
        try:
            for credential in self._credentials:
                if not self._resting(credential, scope):
                    count += 1
                    yield credential
        finally:
            self._hooks.emit(KeysTried(self._provider, count))

    def report_status(self, credential: Credential, scope: str, status: int, headers: HeaderList) -> bool:
        """A 401 rests a key altogether, a 429 for the model; a pool of one never rests."""
        alone = len(self._credentials) == 1
        if status == 401:
            if not alone:
                self._rest(credential, _EVERYWHERE, UNAUTHORIZED, _REST)
            return True
        if status == 429 and not alone:
            self._rest(credential, scope, RATE_LIMITED, retry_after(headers, _REST))
            return True
        return False

    def exhausted_error(self, scope: str) -> BridgeError:
        flags = [flag for one in self._credentials for flag in self._cooldowns(one, scope)]
        limited = [flag.until for flag in flags if flag.value == RATE_LIMITED]
        if not limited and (flags or len(self._credentials) == 1):
            self._hooks.emit(KeysExhausted(self._provider, UNAUTHORIZED))
            return AllKeysRefused()
        self._hooks.emit(KeysExhausted(self._provider, RATE_LIMITED))
        return AllKeysRateLimited(min(limited, default=0.0) - time())  # none: they have rested already

    def states(self, told: Iterable[KeyCooling] = ()) -> Mapping[str, int]:
        """How many keys are `valid`, `temporary` (they rest for a model) and `unauthorized`; `told`
        is what other workers know of this pool."""
        elsewhere = {(one.key, one.reason) for one in told if one.until > time()}
        found = {"valid": 0, "temporary": 0, UNAUTHORIZED: 0}
        for name in self._names:
            reasons = {flag.value for flag in self._shared_state.with_prefix(("key", self._provider, name))}
            reasons |= {reason for key, reason in elsewhere if key == name}
            found[UNAUTHORIZED if UNAUTHORIZED in reasons else "temporary" if reasons else "valid"] += 1
        return found

    def _rest(self, credential: Credential, scope: str, reason: str, seconds: float) -> None:
        """Requests that meet the same answer side by side mark the key once."""
        place, until = self._place(credential, scope), time() + seconds
        with self._lock:
            known = self._shared_state.get(place)
            told = known.until if known is not None else 0.0
            if told < until - _SAME:
                self._shared_state.put(place, reason, until)
                self._hooks.emit(KeyCooling(self._provider, _name(credential), reason, until))
        if told <= time():
            self._hooks.emit(KeyCooledDown(self._provider, reason))

    def _resting(self, credential: Credential, scope: str) -> bool:
        return any(True for _ in self._cooldowns(credential, scope))

    def _cooldowns(self, credential: Credential, scope: str) -> Iterator[Flag]:
        for where in (_EVERYWHERE, scope):
            flag = self._shared_state.get(self._place(credential, where))
            if flag is not None:
                yield flag

    def _place(self, credential: Credential, scope: str) -> tuple[str, ...]:
        return ("key", self._provider, _name(credential), scope[:_CLIP])


def user_credential(names: tuple[str, ...], headers: Mapping[str, str]) -> tuple[Credential, ...]:
    """The client's own credential in the first of these headers that holds one, or nothing.
    It goes on in the header in which it came; a gateway token never does. Raises
    MissingCredential where it is not told which of several it is: servers join repeated headers."""
    for name in names:
        value = headers.get(name, "").strip()
        if "," in value:
            raise MissingCredential(f"{name.title()} holds several credentials: send one")
        secret = bearer_token(value) if name == "authorization" else value
        if secret and not secret.startswith(TOKEN_PREFIX):
            return (Credential("byok", mask_secret(secret), (name.title(), value)),)
    return ()


def _central(header: str, key: Secret) -> Credential:
    """A key of the provider's, in the header where the provider looks for it."""
    value = f"Bearer {key.value}" if header == "Authorization" else key.value
    return Credential("centralized", mask_secret(key.value), (header, value))


@lru_cache(maxsize=1024)
def _name(credential: Credential) -> str:
    """Tells keys apart on all hosts and gives none away."""
    return hashlib.sha256(credential.header[1].encode()).hexdigest()[:16]


def retry_after(headers: HeaderList, default: float) -> float:
    """Seconds, of a `Retry-After` in seconds or as a date (RFC 9110 10.2.3); a day at most.

    >>> retry_after((("Retry-After", "7"),), 60.0), retry_after((), 60.0)
    (7.0, 60.0)
    """
    told = find(headers, "retry-after").strip()
    if told.isascii() and told.isdigit():
        return min(float(told[:_DIGITS]), _LONGEST)
    try:
        moment = parsedate_to_datetime(told)
    except (ValueError, OverflowError):
        return default
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - time()
    return max(0.0, min(seconds, _LONGEST))
