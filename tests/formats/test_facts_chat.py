"""What is read of a chat completion: tool calls, thoughts, tokens and failures."""

from __future__ import annotations

import pytest

from aibridge_flask.formats import CHAT
from aibridge_flask.model import RequestFacts, Turn
from tests.support.chat import DONE, chunk, text, whole

BOTH = pytest.mark.parametrize("streaming", [False, True])
Json = dict[str, object]


def read(data: bytes, streaming: bool = True) -> Turn:
    fold = CHAT.fold(RequestFacts(streaming=True)) if streaming else CHAT.blocking_fold()
    assert fold.feed(data) + fold.end() == data
    return fold.turn()


def read_message(streaming: bool, *deltas: Json) -> Turn:
    """Reads a stream of these deltas, or a response with a choice for each: some upstreams split them so."""
    if streaming:
        return read(b"".join([chunk("c", delta) for delta in ({"role": "assistant"}, *deltas)]) + DONE)
    choices = [{"index": 0, "message": delta, "finish_reason": "stop"} for delta in deltas]
    return read(whole({"id": "c", "choices": choices}), streaming=False)


def thinking(*texts: str) -> Json:
    parts = [{"type": "text", "text": text} for text in texts]
    return {"content": [{"type": "thinking", "thinking": parts}, {"type": "text", "text": "Hi"}]}


def detail(index: int = 0, **members: object) -> Json:
    return {"type": "reasoning.some", "index": index, "format": "unknown", **members}


LET_ME_THINK = [("let me think", "thinking")]


@BOTH
@pytest.mark.parametrize(
    ("deltas", "thoughts"),
    [
        ([{"reasoning": "let me "}, {"reasoning": "think"}, {"content": "Hi"}], LET_ME_THINK),
        ([{"reasoning_content": "let me "}, {"reasoning_content": "think"}], LET_ME_THINK),
        ([{"reasoning_text": "let me think", "reasoning": None}], LET_ME_THINK),
        ([thinking("let ", "me "), thinking("think"), {"content": "Hi"}], LET_ME_THINK),
        ([{"content": [{"type": "thinking", "thinking": "let me think"}]}], LET_ME_THINK),
        (
            [{"reasoning_details": [detail(text="let ")]}, {"reasoning_details": [detail(text="me think")]}],
            LET_ME_THINK,
        ),
        ([{"reasoning_details": [detail(summary="I add.")]}], [("I add.", "reasoning_summary")]),
        ([{"reasoning_details": [detail(data="c2ln"), None, "?"], "reasoning": 1}], []),
        ([{"content": "Hi"}, {"content": [{"type": "text", "text": "Hi"}]}, {"reasoning": ""}], []),
    ],
)
def test_thoughts_are_read_under_every_name(
    streaming: bool, deltas: list[Json], thoughts: list[tuple[str, str]]
) -> None:
    found = read_message(streaming, *deltas).thoughts
    assert [(thought.content, thought.source) for thought in found] == thoughts


@BOTH
@pytest.mark.parametrize(
    ("deltas", "thoughts"),
    [
        (
            [
                {"reasoning": "let me ", "reasoning_details": [detail(text="let me ")]},
                {"reasoning": "think", "reasoning_details": [detail(text="think")]},
                {"reasoning_details": [detail(data="c2ln")]},
            ],
            LET_ME_THINK,
        ),
        ([{"reasoning": "let me think", "reasoning_content": "let me think"}], LET_ME_THINK),
        (
            [{"reasoning": "let me think"}, {"reasoning_details": [detail(text=" let me think\n")]}],
            [*LET_ME_THINK],
        ),
        ([{"reasoning": "let me think"}, {"reasoning_details": [detail(text="think")]}], LET_ME_THINK),
        (
            [{"reasoning": "I add.", "reasoning_details": [detail(summary="I add.")]}],
            [("I add.", "reasoning_summary")],
        ),
        (
            [{"reasoning": "1 + 1", "reasoning_details": [detail(summary="I add.")]}],
            [("I add.", "reasoning_summary"), ("1 + 1", "thinking")],
        ),
    ],
)
def test_a_thought_under_two_names_is_one(
    streaming: bool, deltas: list[Json], thoughts: list[tuple[str, str]]
) -> None:
    found = read_message(streaming, *deltas).thoughts
    assert [(thought.content.strip(), thought.source) for thought in found] == thoughts


def test_two_choices_may_have_the_same_thought() -> None:
    turn = read(b"".join([chunk("c", {"reasoning": "Hm."}, index=index) for index in (0, 1)]) + DONE)
    assert [thought.content for thought in turn.thoughts] == ["Hm.", "Hm."]


def test_a_text_that_speaks_of_thoughts_is_none() -> None:
    turn = read(text("c", 'say "thinking" and "reasoning": "x"') + DONE)
    assert turn.thoughts == ()
