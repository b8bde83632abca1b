"""What is read of a chat completion: tool calls, thoughts, tokens and failures."""

from __future__ import annotations

import pytest

from aibridge_flask.formats import CHAT
from aibridge_flask.model import RequestFacts, Turn
from tests.support.chat import DONE, chunk, event, text, whole

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


def counted(usage: Json) -> tuple[int, int, int]:
    """Input, output and cached tokens that are read of a usage."""
    turn = read(whole({"id": "c", "choices": [], "usage": usage}), streaming=False)
    return turn.usage.input_tokens, turn.usage.output_tokens, turn.usage.cache_read_input_tokens


def tokens(
    prompt: int, completion: int, total: int, cached: int = 0, reasoning: int = 0, **more: int
) -> Json:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": total,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
        **more,
    }


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (tokens(32, 9, 135, reasoning=94), (32, 103, 0)),
        (tokens(32, 9, 135), (32, 103, 0)),
        (tokens(32, 0, 126), (32, 94, 0)),
        (tokens(32, 103, 135, reasoning=94), (32, 103, 0)),
        (tokens(32, 9, 135, cached=20, reasoning=94), (12, 103, 20)),
        (tokens(32, 9, 61, cached=20, reasoning=20), (12, 29, 20)),
        (tokens(32, 9, 61, cached=20), (32, 9, 20)),
        (tokens(32, 9, 541, cached=500), (32, 9, 500)),
        (tokens(32, 9, 635, cached=500, reasoning=94), (32, 103, 500)),
        (tokens(32, 9, 41, cached=20), (12, 9, 20)),
        (tokens(32, 9, 0), (32, 9, 0)),
        (tokens(0, 0, 41), (0, 0, 0)),
        (tokens(32, 9, 41, cached_tokens=20), (12, 9, 20)),
        (tokens(32, 9, 41, prompt_cache_hit_tokens=20, prompt_cache_miss_tokens=12), (12, 9, 20)),
    ],
)
def test_what_stands_only_in_the_total_is_counted_once(usage: Json, expected: tuple[int, int, int]) -> None:
    """It is reasoning, or cached tokens."""
    assert counted(usage) == expected


@pytest.mark.parametrize(
    "last",
    [
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": tokens(32, 9, 41)}]},
        {"choices": [], "x_groq": {"usage": tokens(32, 9, 41)}},
        {"choices": [], "usage": tokens(32, 9, 41)},
    ],
)
@pytest.mark.parametrize("is_before_done", [True, False])
def test_a_usage_counts_wherever_it_stands(last: Json, is_before_done: bool) -> None:
    ends = [event(id="c", **last), DONE]
    turn = read(text("c", "Hi") + b"".join(ends if is_before_done else ends[::-1]))
    assert (turn.usage.input_tokens, turn.usage.output_tokens) == (32, 9)


def test_a_later_nothing_does_not_replace_a_count() -> None:
    told = [tokens(32, 1, 33, cached=20), tokens(0, 9, 0), {"prompt_tokens": None}, {}, None]
    turn = read(b"".join([event(id="c", choices=[], usage=usage) for usage in told]) + DONE)
    usage = turn.usage
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_input_tokens) == (12, 9, 20)


def piece(index: int | None = None, arguments: str = "", **members: str) -> Json:
    """A piece of a tool call."""
    function = {name: members.pop(name) for name in ("name",) if name in members}
    position = {} if index is None else {"index": index}
    return {**position, **members, "function": {**function, "arguments": arguments}}


A, B = ("a", "x", '{"n":1}'), ("b", "x", '{"n":2}')


@pytest.mark.parametrize(
    ("chunks", "calls"),
    [
        ([[piece(0, A[2], id="a", name="x")], [piece(0, B[2], id="b", name="x")]], [A, B]),
        ([[piece(0, A[2], id="a", name="x"), piece(0, B[2], id="b", name="x")]], [A, B]),
        ([[piece(0, A[2], name="x")], [piece(0, B[2], name="x")]], [("", *A[1:]), ("", *B[1:])]),
        ([[piece(None, A[2], name="x")], [piece(None, B[2], name="x")]], [("", *A[1:]), ("", *B[1:])]),
        ([[piece(None, A[2], name="x"), piece(None, B[2], name="x")]], [("", *A[1:]), ("", *B[1:])]),
        ([[piece(0, '{"n":', name="x")], [piece(0, "1}", name="x")], [piece(0, B[2], name="x")]],
         [("", *A[1:]), ("", *B[1:])]),
        ([[piece(0, '{"n":', id="a", name="x")], [piece(0, "1}", id="a", name="x")], [piece(0, "", name="x")]], [A]),
        ([[piece(0, '{"n":', id="a", name="x")], [piece(0, "1}", id="other")]], [A]),
        (
            [
                [piece(None, '{"n":', id="a", name="x"), piece(None, '{"n":', id="b", name="x")],
                [piece(None, "2}", id="b")],
                [piece(None, "1}", id="a")],
            ],
            [A, B],
        ),
        (
            [
                [piece(0, '{"n":', name="x"), piece(1, '{"n":', name="x")],
                [piece(1, "2}")],
                [piece(0, "1}")],
            ],
            [("", *A[1:]), ("", *B[1:])],
        ),
        (
            [
                [piece(0, "", id="a", name="x")],
                [piece(0, '{"n":')],
                [piece(0, "1}")],
                [piece(0, "", id="b", name="x")],
                [piece(0, B[2])],
            ],
            [A, B],
        ),
        ([[piece(0, A[2], id="a", name="x")], [piece(1, B[2], id="a", name="x")]], [A, ("a", *B[1:])]),
        ([[piece(None, A[2], id="a", name="x"), piece(None, B[2], id="a", name="x")]], [A, ("a", *B[1:])]),
        (
            [
                [piece(0, '{"n":', id="a", name="x"), piece(1, '{"n":', id="a", name="x")],
                [piece(0, "1}", id="a"), piece(1, "2}", id="a")],
            ],
            [A, ("a", *B[1:])],
        ),
    ],
)  # fmt: skip
def test_calls_are_told_apart(chunks: list[list[Json]], calls: list[tuple[str, str, str]]) -> None:
    """Some upstreams send one index for all calls, or none, or no ids."""
    turn = read_message(True, *[{"tool_calls": pieces} for pieces in chunks])
    assert [(call.id, call.name, call.input) for call in turn.tool_calls] == calls


def test_whole_calls_without_ids_and_indexes_are_read() -> None:
    calls = [{"function": {"name": "x", "arguments": arguments}} for _, _, arguments in (A, B)]
    turn = read_message(False, {"tool_calls": calls})
    assert [call.input for call in turn.tool_calls] == [A[2], B[2]]


def test_a_character_may_be_cut_over_two_deltas() -> None:
    """Each has half of a surrogate pair."""
    halves = "a\ud83d", "\ude00z"
    deltas = [{"reasoning": half, "tool_calls": [piece(0, half, id="a", name="x")]} for half in halves]
    turn = read_message(True, *deltas)
    assert [thought.content for thought in turn.thoughts] == ["a😀z"]
    assert [call.input for call in turn.tool_calls] == ["a😀z"]
