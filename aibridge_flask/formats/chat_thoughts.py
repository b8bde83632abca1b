"""OpenAI Chat Completions: the model's thoughts, which each upstream tells under a name of its own.

https://openrouter.ai/docs/use-cases/reasoning-tokens
https://docs.mistral.ai/capabilities/reasoning
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..model import Thought
from . import body

_NAMES = ("reasoning_content", "reasoning_text", "reasoning")
_DETAILS = (("text", "thinking"), ("summary", "reasoning_summary"))


class StreamedThoughts:
    """Collects the thoughts of a response from deltas or whole messages.

    Some upstreams tell the same one under two names.
    """

    def __init__(self) -> None:
        self._choices: dict[int, dict[tuple[str, str], list[str]]] = {}

    def __bool__(self) -> bool:
        return bool(self._choices)

    def add(self, choice: int, message: Mapping[str, Any]) -> None:
        for name, source, text in _pieces(message):
            if text:
                self._choices.setdefault(choice, {}).setdefault((name, source), []).append(text)

    def take(self) -> list[Thought]:
        """Returns the thoughts, one of each choice and name, and forgets them."""
        choices, self._choices = self._choices, {}
        return [
            thought
            for texts in choices.values()
            for thought in _without_repeated([Thought(body.join_texts(texts[key]), key[1]) for key in texts])
        ]


def _pieces(message: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yields name, source and text of what a delta or message tells of thoughts."""
    for detail in body.get_array(message, "reasoning_details"):
        for name, source in _DETAILS:
            yield f"details.{name}", source, body.get_string(detail, name)
    for block in body.get_array(message, "content"):
        parts = body.get_array(block, "thinking")
        yield "content", "thinking", body.get_string(block, "thinking")
        yield "content", "thinking", "".join(body.get_string(part, "text") for part in parts)
    for name in _NAMES:
        yield name, "thinking", body.get_string(message, name)


def _without_repeated(thoughts: list[Thought]) -> list[Thought]:
    """Returns the thoughts without those that another one contains, whatever white space is between."""
    words = ["".join(thought.content.split()) for thought in thoughts]
    ranks = [(-len(text), place) for place, text in enumerate(words)]
    return [
        thought
        for thought, own, text in zip(thoughts, ranks, words, strict=True)
        if not any(rank < own and text in other for rank, other in zip(ranks, words, strict=True))
    ]
