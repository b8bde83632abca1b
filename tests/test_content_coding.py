"""Coded bodies of several members, and in pieces of any size."""

from __future__ import annotations

import gzip
import zlib

import pytest

from aibridge_flask import content_coding

LARGE = b"a" * 200_000  # decoded in several steps


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
@pytest.mark.parametrize("sizes", [(200_000,), (200_000, 5), (5, 200_000, 0, 70_000), (70_000, 70_000)])
def test_each_member_is_decoded_once(coding: str, compress: object, sizes: tuple[int, ...]) -> None:
    body = b"".join(compress(LARGE[:size]) for size in sizes)
    assert content_coding.decode(body, coding, 1 << 20) == LARGE[:1] * sum(sizes)


@pytest.mark.parametrize("bits", [zlib.MAX_WBITS, -zlib.MAX_WBITS])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_deflate_is_recognised_in_pieces_of_any_size(bits: int, size: int) -> None:
    compressor = zlib.compressobj(wbits=bits)
    coded = compressor.compress(LARGE) + compressor.flush()
    decoder = content_coding.BoundedDecoder("deflate", 1 << 20)
    pieces = [coded[start : start + size] for start in range(0, len(coded), size)]
    assert b"".join(map(decoder.feed, pieces)) == LARGE
