"""What a request will probably use, learnt from what like ones have used. Values in, values out: no clock."""

from __future__ import annotations

from collections import OrderedDict
from math import log2
from typing import Generic, TypeVar

from msgspec import Struct

from ..model import Usage

K = TypeVar("K")
V = TypeVar("V")

_WEIGHT = 0.2  # of the newest answer in an average
_CACHE_SECONDS = 300  # that a prompt stays in the provider's cache
_TOKENS_PER_BYTE = 0.27  # of a JSON body, before anything is learnt
_OUTPUT_TOKENS = 1000  # likewise
_FEW = 5  # answers from which nothing can be learnt yet
_MANY = 256  # answers, after which older ones count half
_STEPS = 4  # of an octave
_QUANTILE = 0.95
_MAX_KEYS = 10_000


class Request(Struct, frozen=True):
    """What is known of a request before it is sent. `size` is in bytes, `at` in seconds; `max_output` is 0 if
    the request says nothing."""

    actor: str
    client: str
    model: str
    conversation: str
    size: int
    max_output: int
    at: float


class Shares(Struct, frozen=True):
    """Which parts of the input come from the cache, and are written to it."""

    read: float = 0.0
    written: float = 0.0

    def toward(self, usage: Usage) -> Shares:
        total = _input(usage)
        if not total:
            return self
        read = usage.cache_read_input_tokens / total
        written = usage.cache_write_input_tokens / total
        return Shares(_average(self.read, read), _average(self.written, written))


class Cached(Struct, frozen=True):
    """What of a conversation is in the cache, and which part of its new input was written there."""

    tokens: int
    written: float
    at: float


class Outputs:
    """How long answers are: a histogram by powers of the fourth root of two."""

    def __init__(self) -> None:
        self._counts: dict[int, float] = {}
        self.total = 0.0

    def add(self, tokens: int) -> None:
        step = int(_STEPS * log2(tokens + 1))
        self._counts[step] = self._counts.get(step, 0.0) + 1
        self.total += 1
        if self.total > _MANY:
            self._counts = {each: count / 2 for each, count in self._counts.items()}
            self.total /= 2

    def quantile(self) -> int:
        """Returns the length that 95 % of the answers do not exceed."""
        rest = self.total * _QUANTILE
        for step in sorted(self._counts):
            rest -= self._counts[step]
            if rest <= 0:
                return int(2 ** ((step + 1) / _STEPS))
        return _OUTPUT_TOKENS


class Estimator:
    """Of one process. It keeps what it has learnt of the newest 10,000 of each."""

    def __init__(self) -> None:
        self._ratios: Newest[tuple[str, str], float] = Newest()
        self._shares: Newest[tuple[str, str], Shares] = Newest()
        self._cached: Newest[str, Cached] = Newest()
        self._outputs: Newest[tuple[str, str], Outputs] = Newest()

    def expected(self, request: Request) -> Usage:
        """Returns the tokens that the request will probably use."""
        kind = (request.client, request.model)
        total = int(request.size * self._ratios.get(kind, _TOKENS_PER_BYTE))
        read, written = self._from_cache(request, total)
        return Usage(
            input_tokens=total - read - written,
            output_tokens=self._output(request),
            cache_read_input_tokens=read,
            cache_write_input_tokens=written,
        )

    def learn(self, request: Request, usage: Usage) -> None:
        """Learns from what a request has used. An answer without tokens teaches nothing."""
        total, kind = _input(usage), (request.client, request.model)
        if not total or not request.size:
            return
        ratio = total / request.size
        self._ratios.put(kind, _average(self._ratios.get(kind, ratio), ratio))
        if not self._is_warm(request):
            self._shares.put(kind, self._shares.get(kind, Shares()).toward(usage))
        if request.conversation:
            self._cached.put(request.conversation, _cached(usage, request.at))
        answers = self._outputs.get((request.actor, request.model), Outputs())
        answers.add(usage.output_tokens)
        self._outputs.put((request.actor, request.model), answers)

    def _is_warm(self, request: Request) -> bool:
        cached = self._cached.get(request.conversation, _NOTHING_CACHED)
        return request.at - cached.at < _CACHE_SECONDS

    def _from_cache(self, request: Request, total: int) -> tuple[int, int]:
        """Returns what is read from the cache, and what is written to it."""
        if self._is_warm(request):
            cached = self._cached.get(request.conversation, _NOTHING_CACHED)
            read = min(total, cached.tokens)
            return read, int((total - read) * cached.written)
        shares = self._shares.get((request.client, request.model), Shares())
        return int(total * shares.read), int(total * shares.written)

    def _output(self, request: Request) -> int:
        answers = self._outputs.get((request.actor, request.model), Outputs())
        usual = answers.quantile() if answers.total >= _FEW else _OUTPUT_TOKENS
        return min(usual, request.max_output) if request.max_output else usual


class Newest(Generic[K, V]):
    """A table of bounded size, which forgets what was not used for longest."""

    def __init__(self) -> None:
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K, default: V) -> V:
        return self._values.get(key, default)

    def put(self, key: K, value: V) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > _MAX_KEYS:
            self._values.popitem(last=False)


def _cached(usage: Usage, at: float) -> Cached:
    new = usage.input_tokens + usage.cache_write_input_tokens
    written = usage.cache_write_input_tokens / new if new else 0.0
    return Cached(usage.cache_read_input_tokens + usage.cache_write_input_tokens, written, at)


def _input(usage: Usage) -> int:
    return usage.input_tokens + usage.cache_read_input_tokens + usage.cache_write_input_tokens


def _average(known: float, new: float) -> float:
    return known + _WEIGHT * (new - known)


_NOTHING_CACHED = Cached(0, 0.0, float("-inf"))
