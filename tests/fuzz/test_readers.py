"""What reads bytes of others: in any pieces it finds the same, and it never raises anything but its own errors."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import assume, given
from hypothesis import strategies as st

from aibridge_flask import content_coding, sse
from aibridge_flask.errors import BodyTooLarge, BridgeError, InvalidBody
from aibridge_flask.model import Tool
from aibridge_flask.protocols import Fold
from aibridge_flask.upstream.parser import MalformedResponse, ResponseParser
from tests.support.fuzz.answers import Answer, answers
from tests.support.fuzz.data import CUTS, json_bytes, spoiled_bytes
from tests.support.fuzz.exchanges import APIS, OFFERED, Api, bodies, requests, streams
from tests.support.fuzz.profile import examples

TOOL = Tool(OFFERED, "docs", "http://docs", "add", "Adds.", {"type": "object", "properties": {}})
api = st.sampled_from(list(APIS.values()))


# Server-sent events


def reference_events(stream: bytes) -> list[tuple[bytes, bytes]]:
    """The events with data, read line by line as the standard has it."""
    events, name, data = [], b"", []
    for line in [*re.split(rb"\r\n|\n|\r", stream.removeprefix(b"\xef\xbb\xbf")), b""]:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if line == b"":
            events.append((name, b"\n".join(data)))
            name, data = b"", []
        elif field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return [event for event in events if event[1]]


def events_in(pieces: list[bytes]) -> list[tuple[bytes, bytes]]:
    parsed = [sse.parse(event) for piece in pieces for event in sse.split(piece)]
    return [tuple(event) for event in parsed if event.data]


EVENT_LINES = st.lists(
    st.sampled_from(
        [b"data: a", b"data:b", b"data", b"event: x", b"event", b":", b": y", b"", b"", b"id: 1", b"z"]
    ),
    max_size=12,
)


@given(EVENT_LINES, st.data())
@examples(300)
def test_any_pieces_of_a_stream_give_the_events_of_the_standard(
    lines: list[bytes], data: st.DataObject
) -> None:
    ends = data.draw(
        st.lists(st.sampled_from([b"\n", b"\r\n", b"\r"]), min_size=len(lines), max_size=len(lines))
    )
    stream = b"".join(line + end for line, end in zip(lines, ends, strict=True))
    splitter = sse.EventSplitter()
    fed = [splitter.feed(piece) for piece in data.draw(CUTS)(stream)]
    fed.append(splitter.flush())
    assert b"".join(fed) == stream
    assert events_in(fed) == reference_events(stream)


# Folds


def run(fold: Fold, pieces: list[bytes]) -> tuple[bytes, object, bool, bool]:
    """What a fold makes of an answer: its bytes, its facts, how it ends; the error if there is one."""
    try:
        out = b"".join([*map(fold.feed, pieces), fold.end()])
    except BridgeError as error:
        return b"", type(error), False, False
    return out, fold.turn(), fold.complete, fold.awaits_tools


@given(api, st.data())
@examples(400)
def test_a_tap_returns_its_bytes_and_reads_the_same_in_any_pieces(api: Api, data: st.DataObject) -> None:
    facts = api.format.read(b'{"model":"m","stream":true}')
    is_stream = data.draw(st.booleans())
    answer = data.draw(streams(api) if is_stream else bodies(api))

    def tap() -> Fold:
        return api.format.fold(facts) if is_stream else api.format.blocking_fold()

    whole, pieces = run(tap(), [answer]), run(tap(), data.draw(CUTS)(answer))
    if is_stream and hides_usage(api):
        whole, pieces = as_readable(whole), as_readable(pieces)
    assert pieces == whole


def hides_usage(api: Api) -> bool:
    """Whether the tap holds an event back, since the client did not ask for a stream's usage."""
    return api.name == "chat"


def as_readable(result: tuple[bytes, object, bool, bool]) -> tuple[object, ...]:
    """The events that a client can read, and the facts: blank lines beside events that are held back may be
    held back with them, and events that are no JSON are numbered anew or not.
    """
    out, *facts = result
    return [event for event in reference_events(out) if is_json(event[1])], *facts


def is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


@given(api, st.data())
@examples(400)
def test_a_splice_gives_the_same_in_any_pieces(api: Api, data: st.DataObject) -> None:
    is_stream = data.draw(st.booleans())
    request = data.draw(st.sampled_from([r for r in api.requests if r.get("stream", False) is is_stream]))
    body = data.draw(json_bytes([request]).filter(lambda body: reads(api, body)))
    facts = api.format.read(body)
    offer = api.format.offer(body, facts, (TOOL,))
    answer = data.draw(streams(api) if is_stream else bodies(api))

    def splice() -> Fold:
        return (api.format.splice if is_stream else api.format.blocking_splice)(offer, facts)

    whole, pieces = run(splice(), [answer]), run(splice(), data.draw(CUTS)(answer))
    assert (as_readable(pieces) == as_readable(whole)) if is_stream else pieces == whole


def reads(api: Api, body: bytes) -> bool:
    try:
        api.format.read(body)
    except InvalidBody:
        return False
    return True


@given(api, st.data())
@examples(400)
def test_a_request_is_read_or_refused(api: Api, data: st.DataObject) -> None:
    body = data.draw(requests(api))
    if reads(api, body):
        facts = api.format.read(body)
        assert api.format.upstream_body(body, facts) == body or facts.streaming
        assert api.format.offer(body, facts, (TOOL,)).body


# Content codings


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


CODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "deflate": zlib.compress,
    "raw deflate": raw_deflate,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}


def decode_pieces(coding: str, pieces: list[bytes]) -> bytes | type:
    try:
        decoder = content_coding.BoundedDecoder(coding, 1 << 23)
        return b"".join(map(decoder.feed, pieces))
    except BridgeError as error:
        return type(error)


@pytest.mark.parametrize("coder", CODERS)
@given(st.lists(st.tuples(st.binary(max_size=30), st.sampled_from([1, 3, 70_000])), max_size=3), st.data())
@examples(60)
def test_a_coded_body_decodes_to_the_same_in_any_pieces(
    coder: str, runs: list[tuple[bytes, int]], data: st.DataObject
) -> None:
    members = [piece * times for piece, times in (runs[:1] if coder == "br" else runs)]
    coded, coding = b"".join(map(CODERS[coder], members)), coder.removeprefix("raw ")
    assert decode_pieces(coding, data.draw(CUTS)(coded)) == b"".join(members)
    spoiled = data.draw(spoiled_bytes(coded))
    assert decode_pieces(coding, data.draw(CUTS)(spoiled)) == decode_pieces(coding, [spoiled])


@given(st.sampled_from(list(CODERS)), st.integers(1, 5_000_000))
@examples(30)
def test_no_more_is_decoded_than_the_limit(coder: str, size: int) -> None:
    coded, coding = CODERS[coder](b"\0" * size), coder.removeprefix("raw ")
    limit = 100_000
    if size <= limit:
        assert content_coding.decode(coded, coding, limit) == b"\0" * size
    else:
        with pytest.raises(BodyTooLarge):
            content_coding.decode(coded, coding, limit)


# Answers


def parse_answer(data: list[bytes]) -> object:
    parser, body = ResponseParser("POST"), b""
    try:
        for piece in data:
            parser.feed(piece)
            body += parser.take_body()
    except MalformedResponse:
        return "malformed" if not parser.headers_done else (parser.status, parser.headers, "cut")
    is_complete = parser.eof()
    if not parser.headers_done:
        return "malformed"
    return parser.status, parser.headers, body if is_complete else "cut"


@given(api.flatmap(answers), st.data())
@examples(600)
def test_an_answer_is_the_same_in_any_pieces(answer: Answer, data: st.DataObject) -> None:
    wire = data.draw(spoiled_bytes(answer.wire)) if data.draw(st.booleans()) else answer.wire
    assert parse_answer(data.draw(CUTS)(wire)) == parse_answer([wire])


@given(api.flatmap(answers))
@examples(200)
def test_a_well_framed_answer_is_read(answer: Answer) -> None:
    assume(answer.is_whole)
    status, _, body = parse_answer([answer.wire])
    assert (status, body) == (answer.status, answer.body)
