"""Leaves the middle of long texts out of large JSON: one call that decodes it would hold up other threads.

It is looked through in slices. Those that lie within a text are left out, and a mark stands in their place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import wraps
from itertools import chain
from secrets import token_hex
from typing import Any

import msgspec
from msgspec.structs import replace

from ..errors import InvalidBody
from ..large_bytes import LARGE_BYTES, join
from ..model import RequestFacts
from . import large_json, lenient

_SLICE_BYTES = 1 << 14
_MAX_SLICES = (5 << 20) // _SLICE_BYTES  # of a text that is restored: more than any model's context
_CUT = "\n[cut off: too long]"

Read = Callable[[bytes], RequestFacts]


class LongTexts:
    """The slices that were left out of one JSON document."""

    def __init__(self) -> None:
        self._secret = ""
        self._runs: list[list[memoryview]] = []

    def __bool__(self) -> bool:
        return bool(self._runs)

    def shorten(self, data: bytes) -> bytes:
        """Returns the JSON with marks in long texts; small JSON, and what has no such texts, as it is."""
        if len(data) <= LARGE_BYTES:
            return data
        self._secret = token_hex(8)  # nobody else writes such marks
        kept = list(self._kept(data))
        return join(kept) if self._runs else data

    def restore(self, text: str) -> str:
        """Returns a text of the shortened JSON as it was, but cut off after some megabytes."""
        if not self or self._secret not in text:
            return text
        head, *rest = re.split(f"{self._secret}(\\d+);", text)
        parts, slices = [head], _MAX_SLICES
        for run, tail in zip(map(int, rest[::2]), rest[1::2], strict=True):
            parts += map(large_json.decode_part, self._runs[run][:slices])
            slices -= len(self._runs[run])
            if slices < 0:
                return "".join((*parts, _CUT))
            parts.append(tail)
        return "".join(parts)

    def expand(self, raw: bytes) -> bytes:
        """Returns a value of the shortened JSON as it was, all of it."""
        secret = self._secret.encode()
        if not self or secret not in raw:
            return raw
        head, *rest = re.split(rb"%b(\d+);" % secret, raw)
        runs = [(*self._runs[int(run)], tail) for run, tail in zip(rest[::2], rest[1::2], strict=True)]
        return join((head, *chain.from_iterable(runs)))

    def restore_all(self, value: Any) -> Any:
        """Restores the texts within a decoded value."""
        if isinstance(value, str):
            return self.restore(value)
        if isinstance(value, list):
            return [self.restore_all(each) for each in value]
        if isinstance(value, dict):
            return {self.restore(name): self.restore_all(each) for name, each in value.items()}
        return value

    def _kept(self, data: bytes) -> Iterator[bytes | memoryview]:
        """The first whole slice of a text is kept: names and what a text begins with are read there."""
        in_text, slices = False, 0
        for piece in large_json.parts(memoryview(data), _SLICE_BYTES):
            quotes = _count_quotes(bytes(piece))
            slices = slices + 1 if in_text and not quotes else 0
            in_text ^= quotes % 2 == 1
            if slices < 2:
                yield piece
            elif slices == 2:
                yield f"{self._secret}{len(self._runs)};".encode()
                self._runs.append([piece])
            else:
                self._runs[-1].append(piece)


def _count_quotes(piece: bytes) -> int:
    """Counts the quotes that begin or end texts. No escape is cut by the piece."""
    if b"\\" not in piece:
        return piece.count(b'"')
    rest = piece.replace(b"\\\\", b"")
    return rest.count(b'"') - rest.count(b'\\"')


def read_shortened(read: Read) -> Read:
    """Has a format read a large body without the middle of its long texts. The prompt is restored."""

    @wraps(read)
    def read_any(data: bytes) -> RequestFacts:
        if len(data) <= LARGE_BYTES:
            return read(data)
        lenient.check_utf8(data)
        texts = LongTexts()
        short = texts.shorten(data)
        try:
            facts = read(short)
            return replace(facts, prompt=texts.restore(facts.prompt)) if texts else facts
        except msgspec.DecodeError:
            raise InvalidBody("the request body is not JSON: a text is malformed") from None
        except InvalidBody as error:
            place = error.message.find(" at ") if texts else -1  # in the shortened body
            raise InvalidBody(error.message[:place] if place > 0 else error.message) from None

    return read_any
