"""A large value is decoded in steps to what it is decoded to at once."""

from __future__ import annotations

import json
import random

import msgspec
import pytest

from aibridge_flask.formats import body, large_json

PIECES = ["a", "\\", '"', "\n", "\u00e9", "\u4e2d", "\U0001f600", "/", "u", "d83d", "\x07", "\\u"]


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_json, "STEP_BYTES", 20)


@pytest.mark.parametrize("ascii", [True, False], ids=["escapes", "characters"])
@pytest.mark.parametrize("seed", range(20))
def test_any_text_is_decoded_in_steps(seed: int, ascii: bool) -> None:
    dice = random.Random(seed)
    for _ in range(100):
        text = "".join(dice.choices(PIECES, k=dice.randrange(120)))
        value = {"content": [{"text": text}, [text, 1.5, None, True]], text: text}
        data = json.dumps(value, ensure_ascii=ascii).encode()
        assert large_json.loads(data) == value
        assert large_json.loads(b" " * 30 + data + b" " * 30) == value


@pytest.mark.parametrize(
    "text",
    [b'"\\u00E9\\uD83D\\uDE00' * 1 + b"x" * 30 + b'"', b'"' + b"\\\\" * 50 + b'"', b'"' + b"\\/" * 50 + b'"'],
)
def test_escapes_of_any_kind(text: bytes) -> None:
    assert large_json.loads(text) == json.loads(text)


@pytest.mark.parametrize(
    "text", [b'"' + b"a" * 50, b'"' + b"a" * 50 + b"\\", b'"' + b"a" * 50 + b'\\"', b'"' + b"a" * 50 + b'"b"', b'"' + b"\\x" * 30 + b'"', b"[" + b"1," * 30 + b"]", b'{"a":' + b"1" * 30, b"nonsense" * 5]
)  # fmt: skip
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        large_json.loads(text)
    assert body.loads(text) is None


def test_lone_surrogates_are_read_as_before() -> None:
    text = b'["' + b"a" * 30 + b"\\ud83d" + b"b" * 30 + b'"]'
    assert body.loads(text) == json.loads(text)


def test_a_deep_value_costs_no_copy_for_each_level() -> None:
    text = b"[" * 200 + b'"' + b"a" * 30 + b'"' + b"]" * 200
    assert large_json.loads(text) == json.loads(text)
