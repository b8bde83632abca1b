"""What is read of large JSON is what is read of small, though the middle of long texts is left out."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest

from aibridge_flask.errors import InvalidBody
from aibridge_flask.formats import CHAT, MESSAGES, RESPONSES, body, large_json, long_texts
from aibridge_flask.formats.long_texts import LongTexts
from aibridge_flask.protocols import Format
from tests.formats.test_large_json import PIECES

CUT = "\n[cut off: too long]"


@pytest.fixture(autouse=True)
def _small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_texts, "_SLICE_BYTES", 20)
    monkeypatch.setattr(long_texts, "LARGE_BYTES", 50)


def documents(count: int = 100) -> Iterator[tuple[object, bytes]]:
    dice = random.Random(7)
    for _ in range(count):
        texts = ["".join(dice.choices(PIECES, k=dice.randrange(300))) for _ in range(4)]
        value = {"a": texts[0], texts[1]: [texts[2], {"b": texts[3]}, 1.5, None], "c": [""]}
        yield value, json.dumps(value, ensure_ascii=dice.random() < 0.5).encode()


def test_a_document_is_shortened_and_restored() -> None:
    lengths = 0
    for value, data in documents():
        texts = LongTexts()
        short = texts.shorten(data)
        lengths += len(short)
        assert texts.restore_all(large_json.loads(short)) == value
        assert texts.expand(short) == data
        assert body.loads(data) == value
        assert body.join_members(body.split_members(data)) == json_of(data)
    assert lengths < sum(len(data) for _, data in documents())


def json_of(data: bytes) -> bytes:
    """The same without white space between members, as members are joined."""
    return b"{" + b",".join(body.dumps(name) + b":" + raw for name, raw in members_of(data)) + b"}"


def members_of(data: bytes) -> list[tuple[str, bytes]]:
    return list(body.lenient.iter_members(data.decode()))


LONG = 'say "hé\\llo"\n\U0001f600 ' * 50
PROMPTS = [
    (MESSAGES, {"messages": [{"role": "user", "content": LONG}]}),
    (MESSAGES, {"messages": [{"role": "user", "content": [{"type": "text", "text": LONG}]}]}),
    (CHAT, {"messages": [{"role": "user", "content": LONG}]}),
    (RESPONSES, {"input": LONG}),
    (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_text", "text": LONG}] * 2}]}),
]


@pytest.mark.parametrize(("wire_format", "request_body"), PROMPTS)
@pytest.mark.parametrize("ascii", [True, False])
def test_a_prompt_is_whole_up_to_a_limit(
    monkeypatch: pytest.MonkeyPatch, wire_format: Format, request_body: dict[str, object], ascii: bool
) -> None:
    data = json.dumps({"model": "m" * 20, **request_body}, ensure_ascii=ascii).encode()
    facts = wire_format.read(data)
    assert facts.model == "m" * 20
    assert set(facts.prompt.split("\n")) == set(LONG.split("\n")) | {LONG.split("\n", maxsplit=1)[0]}
    assert facts.prompt in (LONG, f"{LONG}\n{LONG}")
    monkeypatch.setattr(long_texts, "_MAX_SLICES", 10)
    cut = wire_format.read(data).prompt
    assert cut.endswith(CUT)
    assert LONG.startswith(cut.removesuffix(CUT))
    assert 0 < len(cut) < 300


def test_nobody_else_writes_marks() -> None:
    texts = LongTexts()
    texts.shorten(json.dumps(["a" * 200]).encode())
    other = LongTexts()
    short = other.shorten(json.dumps(["b" * 200]).encode())
    assert texts.restore(short.decode()) == short.decode()


def test_half_of_a_surrogate_pair_is_kept() -> None:
    data = b'{"a":"' + b"x" * 60 + b"\\ud83d" + b"y" * 60 + b'"}'
    assert body.loads(data) == json.loads(data)


@pytest.mark.parametrize(
    "data",
    [
        b'{"model":"m","messages":[{"role":"user","content":"' + b"a" * 300,
        b'{"model":"m","messages":[{"role":"user","content":"' + b"a" * 300 + b'"}]',
        b'{"model":"' + b"a" * 300 + b'" 1}',
        b'{"model":"m","messages":[{"role":"user","content":"' + b"a" * 100 + b"\\x" + b"a" * 100 + b'"}]}',
    ],
)
def test_what_is_no_json_is_refused_without_a_wrong_place(data: bytes) -> None:
    with pytest.raises(InvalidBody) as caught:
        MESSAGES.read(data)
    assert caught.value.message.startswith("the request body is not JSON")
    assert " at " not in caught.value.message
    assert body.loads(data) is None


def test_a_byte_that_is_no_utf8_is_found_in_a_long_text() -> None:
    data = b'{"model":"m","messages":[{"role":"user","content":"' + b"a" * 300 + b"\xff" + b'a"}]}'
    with pytest.raises(InvalidBody, match="byte 351"):
        MESSAGES.read(data)
