"""What clients and models have written, as a page may show it."""

from __future__ import annotations

import re

from markupsafe import Markup

# Control characters but for tabs and line ends; characters that change the direction of what follows, and
# those that end lines in scripts.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_BLANKS = re.compile(r"\s+")
NAME_LENGTH = 80
TEXT_LENGTH = 4000
_LEAST_LENGTH = 40


def clean(text: str) -> str:
    """Returns a text with a mark in the place of each control character.

    >>> clean("a\\x1b[0m\\u202eb\\nc")
    'a�[0m�b\\nc'
    """
    return _CONTROLS.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def line(text: object, length: int = NAME_LENGTH) -> str:
    """Returns the start of a text as one line.

    >>> line("a\\n b", 80), line("abcdef", 4)
    ('a b', 'abc…')
    """
    start = str(text)[: 4 * length + 4]
    one = _BLANKS.sub(" ", clean(start)).strip()
    return one if len(one) <= length and len(start) == len(str(text)) else one[: length - 1] + "…"


def name(text: object, length: int = NAME_LENGTH) -> Markup:
    """Returns a name, isolated from the text around it; the whole of it on hover."""
    whole, short = line(text, 400), line(text, length)
    if not short:
        return Markup('<span class="none">none</span>')
    title = Markup(' title="{}"').format(whole) if short != whole else ""
    return Markup("<bdi{}>{}</bdi>").format(title, short)


def block(text: object, length: int = TEXT_LENGTH) -> Markup:
    """Returns a text of several lines, shortened."""
    start = clean(str(text)[:length])
    more = Markup('<span class="cut">… shortened</span>') if len(str(text)) > length else ""
    return Markup('<bdi dir="auto">{}</bdi>{}').format(start, more)


class TextBudget:
    """Shortens texts, so that all of a page together do not become too large: `size` bytes or little more."""

    def __init__(self, size: int) -> None:
        self._left = size

    def block(self, text: str, length: int = TEXT_LENGTH) -> Markup:
        """As `block`. A character takes up to six bytes of a page."""
        shown = block(text, max(_LEAST_LENGTH, min(length, self._left // 6)))
        self._left -= len(shown.encode())
        return shown
