"""The credential of a request: the user's own, or a key of the provider's pool."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from time import time
from typing import NamedTuple, Protocol

from ..errors import AllKeysRateLimited, AllKeysRefused, BridgeError, MissingCredential
from ..headers import TOKEN_PREFIX, bare_secret, bearer_token, find, holds_token, mask_secret
from ..hooks import Hooks, KeyCooledDown, KeyCooling, KeysExhausted, KeysTried
from ..model import HeaderList, Secret
from ..protocols import UpstreamResponse
from . import refusals
from .refusals import RATE_LIMITED, UNAUTHORIZED, Refusal
from .shared_state import Flag, SharedState

PASSTHROUGH = "\0passthrough"  # a scope that cannot be a model's name
CENTRALIZED = "centralized"
_ALL_SCOPES = "\0"
_COOLDOWN_SECONDS = 60.0
_MAX_SECONDS = 86_400.0
_NUMBER = re.compile(r"[0-9]{1,300}(\.[0-9]{0,300})?", re.ASCII)
_BURST_SECONDS = 1.0  # cool-downs of parallel requests that differ by less are one
_TOKEN_START = re.compile(rf"(?<![A-Za-z0-9_-]){TOKEN_PREFIX}")
_FURTHER_SCHEME = re.compile(r",\s*[A-Za-z]+\s+\S")  # as in `Bearer a,Bearer b`


@dataclass(frozen=True, slots=True)
class Credential:
    """The only object of a request that holds a secret; `repr` shows the hint.

    `kind` is `centralized` or `byok`. `header` is empty if requests are signed instead.
    """

    kind: str
    hint: str
    header: tuple[str, str] = field(default=("", ""), repr=False)

    def mask(self, text: str) -> str:
        """Returns the text with the secret replaced by its hint."""
        secret = bare_secret(self.header[1]) if text else ""
        return text.replace(secret, self.hint) if secret else text


class CredentialSource(Protocol):
    """Supplies the credentials of a request. `scope` is the model, since rate limits are per model."""

    @property
    def first(self) -> Credential: ...
    def candidates(self, scope: str) -> Iterator[Credential]:
        """Yields the credentials that may be sent now, each once, in their order."""
        ...

    def examine(self, response: UpstreamResponse) -> tuple[UpstreamResponse, Refusal]:
        """Returns the response, which may have been read in part, and whether it refuses the credential.

        Raises ClientDisconnected.
        """
        ...

    def rest(self, credential: Credential, scope: str, reason: str, headers: HeaderList = ()) -> None:
        """Does not use a credential for a while. `headers` are those of the response that refused it."""
        ...

    def exhausted_error(self, scope: str, words: Sequence[str]) -> BridgeError:
        """Returns the error for the client when there is no further credential.

        `words` are the provider's, one for each credential that it has just refused.
        """
        ...


@dataclass(frozen=True, slots=True)
class _OneCredential:
    first: Credential

    def candidates(self, scope: str) -> Iterator[Credential]:
        yield self.first

    def rest(self, credential: Credential, scope: str, reason: str, headers: HeaderList = ()) -> None:
        """There is no other to use."""

    def exhausted_error(self, scope: str, words: Sequence[str]) -> BridgeError:
        return AllKeysRefused(*words)


@dataclass(frozen=True, slots=True)
class UserKey(_OneCredential):
    """A user's own key: sent once, and every response goes to the user."""

    def examine(self, response: UpstreamResponse) -> tuple[UpstreamResponse, Refusal]:
        return response, Refusal()


@dataclass(frozen=True, slots=True)
class RequestSigning(_OneCredential):
    """Requests are signed with the provider's credentials at each attempt; there is no other to try."""

    def examine(self, response: UpstreamResponse) -> tuple[UpstreamResponse, Refusal]:
        """Keeps AWS's words back: they repeat what was signed, a session's token among it."""
        return response, Refusal(UNAUTHORIZED if response.status == 401 else "")


class Cooldown(NamedTuple):
    """A cool-down of a key: for a model, for passthrough requests or, if `scope` is "", for everything."""

    scope: str
    flag: Flag


class KeyPool:
    """The central keys of a provider. Cool-downs are in the shared state, so all workers see them."""

    def __init__(
        self, provider: str, header: str, keys: tuple[Secret, ...], shared_state: SharedState, hooks: Hooks
    ) -> None:
        self._provider, self._shared_state, self._hooks = provider, shared_state, hooks
        self._credentials = tuple(_central_credential(header, key) for key in keys)
        self._digests = tuple(map(_digest, self._credentials))
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
                if not self._is_cooling(credential, scope):
                    count += 1
                    yield credential
        finally:
            self._hooks.emit(KeysTried(self._provider, count))

    def examine(self, response: UpstreamResponse) -> tuple[UpstreamResponse, Refusal]:
        is_single = len(self._credentials) == 1
        return refusals.unauthorized(response) if is_single else refusals.of_a_key(response)

    def rest(self, credential: Credential, scope: str, reason: str, headers: HeaderList = ()) -> None:
        """A rate limit rests a key for this model, another refusal for all models.

        A refusal of a passthrough request, which may need more rights, rests it for these only.
        """
        if reason == RATE_LIMITED:
            self._cool_down(credential, scope, reason, retry_after(headers, _COOLDOWN_SECONDS))
        else:
            affected = scope if scope == PASSTHROUGH else _ALL_SCOPES
            self._cool_down(credential, affected, reason, _COOLDOWN_SECONDS)

    def exhausted_error(self, scope: str, words: Sequence[str]) -> BridgeError:
        flags = [flag for credential in self._credentials for flag in self._cooldowns(credential, scope)]
        limited = [flag.seconds_left for flag in flags if flag.value == RATE_LIMITED]
        if not limited and (flags or words):
            self._hooks.emit(KeysExhausted(self._provider, UNAUTHORIZED))
            return AllKeysRefused(*words)
        self._hooks.emit(KeysExhausted(self._provider, RATE_LIMITED))
        return AllKeysRateLimited(min(limited, default=0.0))  # default: all have just ended

    def states(self, elsewhere: Iterable[KeyCooling] = ()) -> Mapping[str, int]:
        """Counts the keys that are `valid`, `temporary` (cooling down for a model) and `unauthorized`.

        `elsewhere` are the cool-downs that other workers know of.
        """
        cooling = {(key.key, key.reason) for key in elsewhere if key.until > time()}
        counts = {"valid": 0, "temporary": 0, UNAUTHORIZED: 0}
        for digest in self._digests:
            prefix = ("key", self._provider, digest)
            reasons = {flag.value for _, flag in self._shared_state.with_prefix(prefix)}
            reasons |= {reason for key, reason in cooling if key == digest}
            counts[UNAUTHORIZED if UNAUTHORIZED in reasons else "temporary" if reasons else "valid"] += 1
        return counts

    def cooldowns(self) -> Iterator[tuple[str, tuple[Cooldown, ...]]]:
        """Yields the hint of each key, and its cool-downs that this process knows of."""
        for credential, digest in zip(self._credentials, self._digests, strict=True):
            flags = self._shared_state.with_prefix(("key", self._provider, digest))
            found = (Cooldown("" if key[3] == _ALL_SCOPES else key[3], flag) for key, flag in flags)
            yield credential.hint, tuple(found)

    def _cool_down(self, credential: Credential, scope: str, reason: str, seconds: float) -> None:
        """Parallel requests that get the same response cool the key down once."""
        key = self._state_key(credential, scope)
        with self._lock:
            flag = self._shared_state.get(key)
            previous = flag.seconds_left if flag is not None else 0.0
            if previous < seconds - _BURST_SECONDS:
                self._shared_state.put(key, reason, seconds)
                self._hooks.emit(KeyCooling(self._provider, _digest(credential), reason, time() + seconds))
        if previous <= 0:
            self._hooks.emit(KeyCooledDown(self._provider, reason))

    def _is_cooling(self, credential: Credential, scope: str) -> bool:
        return any(True for _ in self._cooldowns(credential, scope))

    def _cooldowns(self, credential: Credential, scope: str) -> Iterator[Flag]:
        for affected in (_ALL_SCOPES, scope):
            flag = self._shared_state.get(self._state_key(credential, affected))
            if flag is not None:
                yield flag

    def _state_key(self, credential: Credential, scope: str) -> tuple[str, ...]:
        return ("key", self._provider, _digest(credential), scope)


def user_credential(names: tuple[str, ...], headers: Mapping[str, str]) -> tuple[Credential, ...]:
    """Returns the client's own credential, of the first of the headers `names` that holds one, or ().

    It is forwarded in the same header. A gateway token is never forwarded. Raises MissingCredential if a
    header holds several credentials: servers join repeated headers.
    """
    for name in names:
        value = headers.get(name, "").strip()
        if "," in value and _is_joined(name, value):
            raise MissingCredential(f"{name.title()} holds several credentials: send one")
        secret = bearer_token(value) if name == "authorization" else value
        if secret and not _is_gateway_token(secret):
            return (Credential("byok", mask_secret(bare_secret(value)), (name.title(), value)),)
    return ()


def _is_joined(name: str, value: str) -> bool:
    """Whether a value with commas is that of a repeated header.

    Copilot's tokens hold commas, Anthropic's keys do not.
    """
    return name != "authorization" or bool(_FURTHER_SCHEME.search(value)) or _is_gateway_token(value)


def _is_gateway_token(secret: str) -> bool:
    return bool(_TOKEN_START.search(secret)) or holds_token(secret)


def _central_credential(header: str, key: Secret) -> Credential:
    value = f"Bearer {key.value}" if header == "Authorization" else key.value
    return Credential(CENTRALIZED, mask_secret(key.value), (header, value))


@lru_cache(maxsize=1024)
def _digest(credential: Credential) -> str:
    """Identifies a key on all hosts without revealing it."""
    return hashlib.sha256(credential.header[1].encode()).hexdigest()[:16]


def retry_after(headers: HeaderList, default: float) -> float:
    """Returns the seconds that a response asks to wait, a day at most.

    They stand in `retry-after-ms`, which OpenAI and Anthropic send, or in `Retry-After` as seconds, of which
    some send fractions, or as a date (RFC 9110 10.2.3).

    >>> retry_after((("Retry-After", "7"),), 60.0), retry_after((), 60.0)
    (7.0, 60.0)
    >>> retry_after((("retry-after-ms", "250"), ("Retry-After", "1")), 60.0)
    0.25
    """
    milliseconds, value = (find(headers, name).strip() for name in ("retry-after-ms", "retry-after"))
    if _NUMBER.fullmatch(milliseconds):
        return min(float(milliseconds) / 1000, _MAX_SECONDS)
    if _NUMBER.fullmatch(value):
        return min(float(value), _MAX_SECONDS)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return default
    seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time()
    return max(0.0, min(seconds, _MAX_SECONDS))
