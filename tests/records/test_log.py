"""A worker's log: what is appended can be read, whatever has happened to the files."""

from __future__ import annotations

import errno
import os
import resource
import threading
import time
from pathlib import Path
from sys import maxsize

import pytest

from aibridge_flask.model import Usage, new_id
from aibridge_flask.records import frames, log_folder, log_reader
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


def test_a_pipe_in_the_place_of_a_segment_holds_nobody_up(log: RecordLog) -> None:
    appended = one_each(log, 2)
    os.mkfifo(log.path / f"{log.end + 10:020d}.log")
    assert read_all(log.path) == (appended, 1)


PASSING = [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO]


def failing(monkeypatch: pytest.MonkeyPatch, name: str, code: int) -> None:
    """Lets a function of `os` fail."""

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, name, fail)


@pytest.mark.parametrize("code", PASSING)
@pytest.mark.parametrize("name", ["open", "scandir"])
def test_what_may_pass_costs_nothing(
    log: RecordLog, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    appended = one_each(log, 3)
    with monkeypatch.context() as patch:
        failing(patch, name, code)
        with pytest.raises(OSError, match=os.strerror(code)):
            log_reader.read(log.path, 0, maxsize)
    assert read_all(log.path) == (appended, 0)


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR])
def test_a_segment_that_is_not_to_be_had_is_skipped(
    log: RecordLog, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    one_each(log, 3)
    failing(monkeypatch, "open", code)
    assert read_all(log.path) == ([], 1)


@pytest.mark.parametrize("code", PASSING)
def test_a_folder_that_cannot_be_listed_is_not_empty(
    log: RecordLog, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    failing(monkeypatch, "scandir", code)
    for function in (log_reader.segments, log_reader.is_empty):
        with pytest.raises(OSError, match=os.strerror(code)):
            function(log.path)
    assert log_reader.end_of(log.path) == 0  # measurements go on
    assert list(log_reader.scan(log.path, 0)) == []


def test_a_file_in_the_place_of_a_log_is_empty(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert log_reader.is_empty(tmp_path / "file")
    assert log_reader.is_empty(tmp_path / "missing")


@pytest.mark.parametrize(
    "name",
    ["9" * 25, "9" * 20, f"{1 << 63:020d}", "1" * 19, "\u0661" * 20, "\u00b2" * 20, "", "-" + "1" * 19],
)
def test_files_whose_names_are_no_offsets_are_ignored(log: RecordLog, name: str) -> None:
    appended = one_each(log, 2)
    (log.path / f"{name}.log").write_bytes(b"x")
    assert read_all(log.path) == (appended, 0)
    next(iter(log_reader.segments(log.path))).path.unlink()
    assert log_reader.segments(log.path) == []
    assert not log_reader.is_empty(log.path)


@pytest.mark.parametrize("kept", [0, 10, 100, 200])
def test_a_file_that_is_shortened_while_it_is_read_ends_there(
    log: RecordLog, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr("aibridge_flask.records.log._SEGMENT_BYTES", 250)
    appended = one_each(log, 20)
    first, second, *_ = log_reader.segments(log.path)
    size, real = log.end // 20, os.open

    def shorten(path: Path, *arguments: int, **options: int) -> int:
        if path == first.path:
            os.truncate(path, kept)
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", shorten)
    assert read_all(log.path) == (appended[: kept // size] + appended[second.start // size :], 0)


def test_a_segment_keeps_when_it_was_applied(log: RecordLog) -> None:
    one_each(log, 1)
    (segment,) = log_reader.segments(log.path)
    os.utime(segment.path, (1e9, 1e9))  # an append of long ago
    applied_at = log_reader.applied_at(segment)
    assert abs(applied_at - time.time()) < 60
    os.utime(segment.path, (2e9, 2e9))
    assert log_reader.applied_at(segment) == 2e9  # not set again


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


def test_a_log_has_no_name_before_it_is_locked(tmp_path: Path) -> None:
    """Else a worker that looks for dead ones would take it over and remove it."""
    stop = threading.Event()

    def take_over() -> None:
        while not stop.is_set():
            for log in log_folder.logs(tmp_path):
                with log_folder.lock_if_dead(log) as is_dead:
                    if is_dead:
                        log_folder.remove(log)

    thread = threading.Thread(target=take_over)
    thread.start()
    logs = [RecordLog(tmp_path, new_id()) for _ in range(200)]
    stop.set()
    thread.join()
    assert all(log.path.exists() for log in logs)
    for log in logs:
        log.close()


def test_a_log_goes_on_after_a_disk_that_could_do_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = RecordLog(tmp_path, new_id())

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        patch.setattr(os, "ftruncate", fail)
        with pytest.raises(OSError, match="gone"):
            log.append(EVENTS)
    log.append(EVENTS)
    assert [frame.events for frame in log_reader.read(log.path, 0, log.end).frames] == [tuple(EVENTS)]
    log.close()


def test_which_database_a_log_belongs_to_needs_no_disk(tmp_path: Path) -> None:
    log = RecordLog(tmp_path, new_id())
    log_folder.set_database(log.path, "one")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        log_folder.set_database(log.path, "other")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert log_folder.database_of(log.path) == "one"
    log.close()
