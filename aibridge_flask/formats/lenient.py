"""JSON that msgspec refuses, though it is valid or nearly so: lone surrogates, fields of unexpected types.

Slower than msgspec, and needed for few bodies.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any

from ..errors import InvalidBody

_SLICE_BYTES = 1 << 18


def check_utf8(body: bytes) -> None:
    """Decodes in slices: the text of a large body may take four times its memory. Raises InvalidBody."""
    view, start = memoryview(body), 0
    try:
        while len(view) - start > _SLICE_BYTES:
            start += codecs.utf_8_decode(view[start : start + _SLICE_BYTES], "strict", False)[1]
        str(view[start:], "utf-8")
    except UnicodeDecodeError as error:
        position = start + error.start
        raise InvalidBody(f"the request body is not UTF-8: byte {position}") from None


def parse_object(text: str) -> dict[str, Any]:
    """Decodes a JSON object with `json`. Raises InvalidBody."""
    try:
        value = json.loads(text, parse_constant=_reject_constant)
    except json.JSONDecodeError as error:
        position = f"line {error.lineno}, column {error.colno}"
        raise InvalidBody(f"the request body is not JSON: {error.msg} at {position}") from None
    except RecursionError:
        raise InvalidBody("the request body is nested too deeply") from None
    except ValueError as error:
        raise InvalidBody(f"the request body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidBody("the request body is not a JSON object")
    return value


def _reject_constant(constant: str) -> Any:
    """`json` accepts NaN and Infinity, which are not JSON."""
    raise ValueError(f"{constant} is not a JSON value")


def iter_members(text: str) -> Iterator[tuple[str, bytes]]:
    """Yields name and unchanged value of each member of an object that msgspec may have refused."""
    decode, position = json.JSONDecoder().raw_decode, _skip_separators(text, text.index("{") + 1)
    while text[position] != "}":
        name, position = decode(text, position)
        start = _skip_separators(text, position)
        _, position = decode(text, start)
        yield name, text[start:position].encode()
        position = _skip_separators(text, position)


def iter_elements(text: str) -> Iterator[bytes]:
    """Like `iter_members`, for the elements of an array."""
    decode, position = json.JSONDecoder().raw_decode, _skip_separators(text, text.index("[") + 1)
    while text[position] != "]":
        start = position
        _, position = decode(text, start)
        yield text[start:position].encode()
        position = _skip_separators(text, position)


def _skip_separators(text: str, position: int) -> int:
    """Returns the position of the next value."""
    while text[position] in " \t\r\n,:":
        position += 1
    return position
