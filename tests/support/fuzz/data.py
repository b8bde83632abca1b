"""Odd texts, bytes, JSON and chunkings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

ODD_VALUES: list[Any] = [
    None, True, -1, 10**30, 0.5, "", "\ud800\0", "\u202e\n", "x" * 5000, [], {}, [[[[]]]], {"": {"type": []}}, [None, 1, "a"],
]  # fmt: skip
ODD_BYTES = [
    b"\0", b"\r", b"\n", b"\r\n", b"\n\n", b"\r\r", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc3", b":", b": x\n", b"data", b"data:", b"event: error\n",
    b"{", b"}", b"[" * 3000, b'"', b",", b"\\ud83d", b"1e999", b"NaN", b"9" * 5000, b"data: [DONE]\n\n",
]  # fmt: skip
BYTES = st.one_of(st.sampled_from(ODD_BYTES), st.binary(max_size=20))


@dataclass(frozen=True)
class Cuts:
    """Cuts bytes into pieces: after every so many, or at places anywhere."""

    every: int = 0
    places: tuple[int, ...] = ()

    def __call__(self, data: bytes) -> list[bytes]:
        """The pieces; none is empty."""
        places = range(0, len(data), self.every) if self.every else self.places
        edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
        return [data[start:end] for start, end in pairwise(edges) if start < end]


CUTS = st.one_of(
    st.lists(st.integers(0, 1 << 16), max_size=8).map(lambda places: Cuts(places=tuple(places))),
    st.sampled_from([1, 2, 3, 7]).map(Cuts),
)


@st.composite
def spoiled_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes, with a few of them left out, repeated or replaced."""
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 1, 2, 30, 1 << 30])))
        new = draw(st.one_of(BYTES, st.just(b""), st.just(data[start:end] * 2)))
        data = data[:start] + new + data[end:]
    return data


@st.composite
def changed_json(draw: st.DrawFn, trees: list[Any]) -> Any:
    """One of the trees, with a few of its values replaced."""
    tree = draw(st.sampled_from(trees))
    for _ in range(draw(st.integers(0, 3))):
        tree = _with_a_change(draw, tree)
    return tree


def _with_a_change(draw: st.DrawFn, tree: Any, depth: int = 0) -> Any:
    """Goes down to any node, seldom to the first."""
    if not isinstance(tree, (dict, list)) or not tree or draw(st.integers(0, 6 if depth else 30)) == 0:
        return draw(st.sampled_from(ODD_VALUES))
    copy = tree.copy()
    key = draw(st.sampled_from(list(tree) if isinstance(tree, dict) else range(len(tree))))
    if draw(st.integers(0, 9)) == 0:
        del copy[key]
    else:
        copy[key] = _with_a_change(draw, tree[key], depth + 1)
    return copy


@st.composite
def json_bytes(draw: st.DrawFn, trees: list[Any]) -> bytes:
    """A changed tree as text, which may be no JSON any more."""
    tree = draw(changed_json(trees))
    text = json.dumps(tree, ensure_ascii=draw(st.booleans()))
    data = text.encode("utf-8", "surrogatepass")
    if isinstance(tree, dict) and draw(st.integers(0, 9)) == 0:
        repeated = json.dumps(draw(st.sampled_from([*tree, "x"])))
        data = data[:-1].rstrip() + b", " * bool(tree) + repeated.encode() + b": 1}"
    return draw(spoiled_bytes(data)) if draw(st.integers(0, 7)) == 0 else data
