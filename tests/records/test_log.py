"""A worker's log: what is appended can be read, whatever has happened to the files."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path
from sys import maxsize

import pytest

from aibridge_flask.model import Usage, new_id
from aibridge_flask.records import frames, log_reader
from aibridge_flask.records.events import Ended, Event, Started, TokenUsage, now
from aibridge_flask.records.log import RecordLog

EVENTS: tuple[Event, ...] = (
    Started("1", "ann", now(), metadata={"team": "x"}, model="m"),
    TokenUsage("1", 0, "r", "m", Usage(3, 4, metadata={"reasoning": 1}), now()),
    Ended("1", now(), status_code=200, usage=Usage(3, 4), parts=((Usage(3, 4), ("m", "n")),)),
)


@pytest.fixture
def log(tmp_path: Path) -> RecordLog:
    return RecordLog(tmp_path, new_id())


def read_all(path: Path, limit: int = maxsize) -> tuple[list[tuple[Event, ...]], int]:
    """The events of each frame, and the number of damaged places."""
    found: list[tuple[Event, ...]] = []
    position = damaged = 0
    while (chunk := log_reader.read(path, position, limit)).end > position:
        position = chunk.end
        found += [frame.events for frame in chunk.frames]
        damaged += chunk.damaged
    return found, damaged


def one_each(log: RecordLog, count: int) -> list[tuple[Event, ...]]:
    """Appends frames that can be told apart."""
    appended: list[tuple[Event, ...]] = [
        (TokenUsage("1", n, "r", "m", Usage(n), now()),) for n in range(count)
    ]
    for events in appended:
        log.append(events)
    return appended


def test_appended_events_are_read_back(log: RecordLog) -> None:
    log.append(EVENTS)
    log.append(EVENTS[:1])
    assert read_all(log.path) == ([EVENTS, EVENTS[:1]], 0)


def test_text_that_is_no_text_is_cleaned(log: RecordLog) -> None:
    log.append((Started("1", "a\ud800", now(), metadata={"k\ud800": "v\ud800"}),))
    (((started,),), _) = read_all(log.path)
    assert isinstance(started, Started)
    assert (started.initiator_id, started.metadata) == ("a?", {"k?": "v?"})


def test_the_applier_gets_frames_from_memory_and_the_rest_from_files(log: RecordLog) -> None:
    appended = one_each(log, 10)
    first = log.take(0, 4)
    assert [frame.events for frame in first] == appended[:4]
    assert log.take(first[0].end, 4) == []  # they were taken before
    assert read_all(log.path)[0] == appended


def test_memory_holds_a_window_of_the_log_only(log: RecordLog) -> None:
    big = TokenUsage("1", 0, "r" * 1_000_000, "m", Usage(), now())
    for _ in range(30):
        log.append((big,))
    assert log.take(0, 100) == []
    assert len(read_all(log.path)[0]) == 30
    assert len(list(log.path.glob("*.log"))) == 2


@pytest.mark.parametrize("place", [0, 1, 5, 9, 14, 20, 25, 40])
def test_a_damaged_byte_costs_its_frame_only(log: RecordLog, place: int) -> None:
    appended = one_each(log, 9)
    (segment,) = log_reader.segments(log.path)
    data = bytearray(segment.path.read_bytes())
    fourth = log.end // 9 * 3
    data[fourth + place] ^= 0xFF
    segment.path.write_bytes(data)
    found, damaged = read_all(log.path)
    assert (found, damaged) == (appended[:3] + appended[4:], 1)


def test_a_log_cut_at_any_byte_is_read_up_to_there(log: RecordLog) -> None:
    appended = one_each(log, 3)
    (segment,) = log_reader.segments(log.path)
    data, size = segment.path.read_bytes(), log.end // 3
    for length in range(len(data)):
        segment.path.write_bytes(data[:length])
        assert read_all(log.path) == (appended[: length // size], 0)


@pytest.mark.parametrize(
    "junk",
    [b"", b"\0" * 100_000, b"\xa1\xb2BR", b"\xa1\xb2BR\x01" + b"\xff" * 30, os.urandom(3_000_000), b"\xa1" * 2_000_000],
    ids=["empty", "zeros", "mark", "huge", "random", "marks"],
)  # fmt: skip
def test_junk_between_frames_is_skipped(log: RecordLog, junk: bytes) -> None:
    appended = one_each(log, 4)
    (segment,) = log_reader.segments(log.path)
    data = segment.path.read_bytes()
    middle = log.end // 2
    segment.path.write_bytes(data[:middle] + junk + data[middle:])
    found, damaged = read_all(log.path)
    assert (found, damaged > 0) == (appended, bool(junk))


def test_a_segment_that_is_gone_costs_itself_only(log: RecordLog) -> None:
    big = TokenUsage("1", 0, "r" * 9_000_000, "m", Usage(), now())
    for _ in range(6):
        log.append((big,))
    first, second, third = log_reader.segments(log.path)
    second.path.unlink()
    assert read_all(log.path) == ([(big,)] * 4, 0)
    first.path.unlink()
    third.path.unlink()
    assert read_all(log.path) == ([], 0)
    log.path.rename(log.path.with_name("elsewhere"))
    assert read_all(log.path) == ([], 0)


def test_a_folder_in_the_place_of_a_segment_is_skipped(log: RecordLog) -> None:
    appended = one_each(log, 2)
    (log.path / f"{log.end:020d}.log").mkdir()
    assert read_all(log.path)[0] == appended


def test_an_event_of_a_later_version_takes_nothing_with_it(log: RecordLog) -> None:
    later = type("Later", (Ended,), {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(frames._NAMES, later, "Later")
        log.append((EVENTS[0], later("1", now()), EVENTS[1]))
    (frame,) = log_reader.read(log.path, 0, maxsize).frames
    assert frame.events == EVENTS[:2]
    assert [name for name, _ in frame.unknown] == ["Later"]


def test_a_full_disk_appends_nothing_and_the_log_goes_on_afterwards(log: RecordLog) -> None:
    log.append(EVENTS)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.end + 50, limits[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            log.append(EVENTS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    log.append(EVENTS[:1])
    assert read_all(log.path) == ([EVENTS, EVENTS[:1]], 0)


def test_positions_are_noted_for_others(log: RecordLog) -> None:
    assert log_reader.read_position(log.path) == 0
    log_reader.note_position(log.path, 1 << 40)
    assert log_reader.read_position(log.path) == 1 << 40
