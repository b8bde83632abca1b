"""Who has made which stored object: the memory of a process, and the logs of its host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aibridge_flask.model import new_id
from aibridge_flask.records import log_reader, stored_objects
from aibridge_flask.records.events import Prompt, StoredObject, now
from aibridge_flask.records.log import RecordLog
from aibridge_flask.records.log_search import unapplied_events
from aibridge_flask.records.recorder import Recorder
from aibridge_flask.records.stored_objects import StoredObjects
from tests.support.records import rows, settings, tables, wait_until


@pytest.fixture
def recorder(database_url: str, tmp_path: Path) -> Iterator[Recorder]:
    recorder = Recorder(settings(database_url, spool_dir=str(tmp_path / "spool")))
    recorder.start()
    yield recorder
    recorder.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RecordLog]:
    log = RecordLog(tmp_path, new_id())
    yield log
    log.close()


def made(id: str, maker: str = "ann", provider: str = "openai") -> StoredObject:
    return StoredObject(provider, id, maker, now())


def find(log: RecordLog, id: str) -> list[str]:
    """The makers of an id, as the logs of the folder tell."""
    events = unapplied_events(log.path.parent, (), id.encode())
    return [event.initiator_id for event in events if isinstance(event, StoredObject) and event.id == id]


def test_the_first_maker_counts(recorder: Recorder, database_url: str) -> None:
    recorder.record(made("resp_1"), made("resp_1", "bob"), made("resp_2", "bob"))
    recorder.record(made("resp_2"))
    wait_until(lambda: len(rows(database_url, tables.stored_objects)) == 2)
    objects = StoredObjects(recorder)
    asked = [("resp_1", "ann"), ("resp_1", "bob"), ("resp_2", "ann"), ("resp_2", "bob"), ("resp_3", "ann")]
    told = [objects.was_made_by("openai", id, actor) for id, actor in asked]
    assert told == [(True,), (False,), (False,), (True,), ()]


@pytest.mark.parametrize("id", ["", "resp_\n", "resp_\ud800", "r" * 1025, "\u00e9" * 513])
def test_no_api_has_such_an_id(recorder: Recorder, id: str) -> None:
    objects = StoredObjects(recorder)
    assert objects.made("openai", id, "ann") == ()
    assert objects.was_made_by("openai", id, "bob") == ()


def test_an_actor_whose_name_no_database_takes_has_what_it_made(
    recorder: Recorder, database_url: str
) -> None:
    StoredObjects(recorder).record("openai", "resp_1", "a\0b\ud800")
    wait_until(lambda: len(rows(database_url, tables.stored_objects)) == 1)
    assert StoredObjects(recorder).was_made_by("openai", "resp_1", "a\0b\ud800") == (True,)


@pytest.mark.parametrize(("count", "size"), [(30_000, 10), (30, 1_000_000)])
def test_the_memory_is_bounded(count: int, size: int) -> None:
    memory = stored_objects._Memory()
    for number in range(count):
        memory.put(("openai", f"resp_{number}"), "a" * size)
    known = [number for number in range(count) if memory.get(("openai", f"resp_{number}"))]
    assert known[-1] == count - 1
    assert known == list(range(count - len(known), count))
    assert len(known) <= 10_000
    assert len(known) * size <= 4 << 20


def test_only_what_is_not_applied_is_found(log: RecordLog) -> None:
    log.append((made("resp_1"),))
    middle = log.append((made("resp_2"), made("resp_3", "bob")))
    log.append((Prompt("1", "what is resp_4?", now()), made("resp_5")))
    assert [find(log, f"resp_{number}") for number in range(1, 6)] == [["ann"], ["ann"], ["bob"], [], ["ann"]]
    log_reader.note_position(log.path, middle)
    assert [find(log, f"resp_{number}") for number in (2, 5)] == [[], ["ann"]]


def test_the_logs_of_all_workers_are_searched(log: RecordLog) -> None:
    other = RecordLog(log.path.parent, new_id())
    log.append((made("resp_1"),))
    other.append((made("resp_1", "bob", "second"),))
    assert sorted(find(log, "resp_1")) == ["ann", "bob"]
    other.close()


def test_the_newest_segments_are_searched(log: RecordLog) -> None:
    big = Prompt("1", "x" * 9_000_000, now())
    for number in range(8):
        log.append((big, made(f"resp_{number}")))
    assert len(log_reader.segments(log.path)) == 4
    assert [find(log, f"resp_{number}") for number in range(8)] == [[]] * 4 + [["ann"]] * 4


def test_a_text_across_two_steps_of_the_search_is_found(log: RecordLog) -> None:
    for size in range((1 << 20) - 200, (1 << 20) - 20, 20):
        log.append((Prompt("1", "x" * size, now()), made("resp_of_ann")))
        assert find(log, "resp_of_ann") == ["ann"]
        log_reader.note_position(log.path, log.end)


@pytest.mark.parametrize("content", [b"", b"resp_1", b"\0" * 100 + b"resp_1"])
def test_damage_hides_what_follows_it_and_breaks_nothing(log: RecordLog, content: bytes) -> None:
    log.append((made("resp_0"),))
    (segment,) = log_reader.segments(log.path)
    with segment.path.open("ab") as file:
        file.write(content)
    assert (find(log, "resp_0"), find(log, "resp_1")) == (["ann"], [])


def test_files_that_cannot_be_read_are_left_out(log: RecordLog) -> None:
    log.append((made("resp_0"),))
    (log.path / f"{log.end:020d}.log").mkdir()
    assert find(log, "resp_0") == ["ann"]
