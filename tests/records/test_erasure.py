"""A person's content and name are erased everywhere; sums stay, and nothing comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from aibridge_flask import config
from aibridge_flask.limits import changes
from aibridge_flask.model import new_id
from aibridge_flask.pricing import PriceList
from aibridge_flask.records import audit, log_folder, log_reader, sum_tables, tables, tokens
from aibridge_flask.records import database as databases
from aibridge_flask.records.erasure import Erased, Erasure
from aibridge_flask.records.events import Ended, GatewayTokenUsed, Prompt, StoredObject, now
from aibridge_flask.records.file_erasure import ErasedFiles, FileErasure
from aibridge_flask.records.frames import blank, decode
from aibridge_flask.records.purge import Purge
from aibridge_flask.records.recorder import Recorder
from aibridge_flask.records.store import Store
from aibridge_flask.records.sum_check import Comparison, SumCheck
from tests.conftest import BOTH_DATABASES
from tests.support.aged import apply, contents, days_ago, execute, interception, slices
from tests.support.records import is_applied, rows, settings
from tests.support.server import wait_until

pytestmark = BOTH_DATABASES
PERSON = "Zyzzyva Quixotic"
WORDS = "Jabberwocky"


def limit(**members: object) -> Any:
    return config.load({"limit": [members]}).limit[0]


def erase(url: str, actor: str = PERSON) -> Erased:
    with slices(url) as work:
        return Erasure(work, actor).run()


def everything(url: str) -> str:
    """All rows of all tables, as text."""
    return str([rows(url, table) for table in sum_tables.ALL_TABLES.sorted_tables])


def mentions(url: str, text: str) -> bool:
    return text in everything(url)


def totals(url: str) -> dict[str, int]:
    sums: dict[str, int] = {}
    for row in rows(url, sum_tables.usage_hourly):
        for name in sum_tables.AMOUNTS:
            sums[name] = sums.get(name, 0) + row[name]
    return sums


def compare(url: str) -> Comparison:
    return SumCheck(databases.connect(url)).compare()


def write_history(url: str) -> None:
    """The person's records and another's, some of them in the same sessions and hours."""
    common = {"client_session_id": "same", "user_agent": f"agent of {PERSON}", "credential_hint": "sk-Z...c"}
    events = [
        *interception("a", 1, WORDS, PERSON, token_id="t", **common),
        *interception("b", 1, WORDS, PERSON, **common),
        *interception("c", 1, WORDS, PERSON),
        *interception("other", 1, "kept", "bob", client_session_id="same"),
        StoredObject("openai", "resp_1", PERSON, now()),
        StoredObject("openai", "resp_2", "bob", now()),
    ]
    engine = databases.connect(url)
    for name, whom in (("each", "*"), ("own", PERSON)):
        changes.add(
            engine, limit(name=name, scope={"actor": whom}, per="month", tokens=9, credential="any"), "root"
        )
    apply(url, *events)
    tokens.create(engine, PERSON, False, 0, ["core"], by="cli:root")
    tokens.create(engine, "bob", False, 0, by=PERSON)
    audit.write(engine, "boss", "session.view", PERSON)


def test_content_and_name_are_erased_and_sums_stay(database_url: str) -> None:
    write_history(database_url)
    before = totals(database_url)
    assert PERSON in {row["subject"] for row in rows(database_url, sum_tables.ledger)}
    assert erase(database_url) == Erased(3, 1, 1)
    assert not mentions(database_url, PERSON)
    assert not mentions(database_url, WORDS)
    assert contents(database_url) == {"a": 0, "b": 0, "c": 0, "other": 6}
    assert {row["id"]: row["initiator_id"] for row in rows(database_url)} == {
        "a": "erased",
        "b": "erased",
        "c": "erased",
        "other": "bob",
    }
    (erased, *_) = rows(database_url)
    assert [erased[name] for name in ("metadata", "user_agent", "credential_hint", "token_id")] == [
        {},
        "",
        "",
        "",
    ]
    assert [row["user"] for row in rows(database_url, tables.gateway_tokens)] == ["bob"]
    assert [row["id"] for row in rows(database_url, tables.stored_objects)] == ["resp_2"]
    assert totals(database_url) == before
    assert compare(database_url) == Comparison()
    assert erase(database_url) == Erased(0, 0, 0)


def test_the_audit_stays_without_the_name(database_url: str) -> None:
    write_history(database_url)
    erase(database_url)
    found = {(row["actor_id"], row["action"]): row for row in rows(database_url, sum_tables.audit)}
    made = {
        ("cli:root", "token.create"),
        ("erased", "token.create"),
        ("boss", "session.view"),
        ("root", "limit.create"),
    }
    assert set(found) == made
    assert found["cli:root", "token.create"]["after"] == {}
    assert found["erased", "token.create"]["after"]["user"] == "bob"
    assert found["boss", "session.view"]["target"] == "erased"


def test_sums_of_what_has_expired_are_renamed_too(database_url: str) -> None:
    session = {"client_session_id": "long"}
    apply(
        database_url,
        *interception("expired", 401, WORDS, PERSON, **session),
        *interception("kept", 399, WORDS, PERSON, **session),
        *interception("lone", 500, WORDS, PERSON),
        *interception("before", 500, WORDS, "earlier"),
    )
    erase(database_url, "earlier")
    before = totals(database_url)
    with slices(database_url) as work:
        Purge(work, config.load({}).records).run()
    erase(database_url)
    assert not mentions(database_url, PERSON)
    assert totals(database_url) == before
    keyed = {row["id"]: row for row in rows(database_url, sum_tables.sessions)}
    assert (keyed["long"]["requests"], keyed["long"]["initiator_id"]) == (2, "erased")
    (of_long,) = [row for row in rows(database_url) if row["id"] == "kept"]
    assert of_long["session_key"] == keyed["long"]["key"]
    usages = {row["id"] for row in rows(database_url, sum_tables.usage_hourly)}
    assert {row["usage_id"] for row in rows(database_url, sum_tables.tools_hourly)} == usages
    assert {row["usage_id"] for row in rows(database_url, sum_tables.session_usage)} == usages
    assert compare(database_url) == Comparison()


def test_two_people_that_are_erased_share_rows(database_url: str) -> None:
    session = {"client_session_id": "same"}
    apply(
        database_url,
        *interception("a", 1, "", "ann", **session),
        *interception("b", 1, "", "bob", **session),
        *interception("x", 500, "", "ann"),
        *interception("y", 500, "", "bob"),
    )
    before = totals(database_url)
    with slices(database_url) as work:
        Purge(work, config.load({}).records).run()
    erase(database_url, "ann")
    erase(database_url, "bob")
    assert totals(database_url) == before
    assert {row["initiator_id"] for row in rows(database_url, sum_tables.usage_hourly)} == {"erased"}
    assert compare(database_url) == Comparison()


def test_a_late_log_brings_nothing_back(database_url: str) -> None:
    begun = interception("under way", 0.001, WORDS, PERSON)
    apply(database_url, *begun[:3])
    erase(database_url)
    late = interception("late", 1, WORDS, PERSON, user_agent=PERSON)
    apply(database_url, *begun[3:], *late, StoredObject("openai", "resp_late", PERSON, days_ago(1)))
    apply(database_url, *late[1:], Prompt("under way", WORDS, now()))
    assert not mentions(database_url, PERSON)
    assert not mentions(database_url, WORDS)
    assert contents(database_url) == {"under way": 0, "late": 0}
    assert rows(database_url, tables.stored_objects) == []
    assert totals(database_url)["requests"] == 2
    assert compare(database_url) == Comparison()


def test_who_comes_again_is_recorded_again(database_url: str) -> None:
    apply(database_url, *interception("before", 1, WORDS, PERSON))
    erase(database_url)
    execute(database_url, "UPDATE erasures SET erased_at = '2020-01-01 00:00:00'")
    apply(database_url, *interception("again", 0, WORDS, PERSON), *interception("other", 1, WORDS, "bob"))
    assert contents(database_url) == {"before": 0, "again": 6, "other": 6}


@pytest.mark.only_on("postgresql")  # SQLite has one writer
def test_a_transaction_that_runs_meanwhile_is_waited_for(database_url: str) -> None:
    """It has not seen the tombstone, and its rows are erased when it is over."""
    events = interception("meanwhile", 1, WORDS, PERSON)
    other = Store(databases.connect(database_url), PriceList(config.load({})))
    other.open()
    other.position("log")
    waits = 0

    with databases.connect(database_url).connect() as connection:
        connection.execute(sa.text("SELECT * FROM erasures"))  # as a batch does first

        def is_stopped_within(seconds: float) -> bool:
            nonlocal waits
            waits += 1
            if waits == 1:
                connection.rollback()
                other.apply("log", events, 0, 1)
            return False

        from aibridge_flask.records.slices import Slices

        with Slices(databases.connect(database_url), is_stopped_within) as work:
            Erasure(work, PERSON).run()
    other.close()
    assert waits >= 1
    assert not mentions(database_url, PERSON)
    assert contents(database_url) == {"meanwhile": 0}


@pytest.mark.only_on("sqlite")  # PostgreSQL overwrites nothing
def test_the_words_leave_sqlites_files(database_url: str, tmp_path: Path) -> None:
    for number in range(60):
        apply(
            database_url,
            *interception(new_id(), number, "plain words " * 20, "bob"),
            *interception(new_id(), number, f"{WORDS} and more " * 20, PERSON, user_agent=PERSON),
        )
    tokens.create(databases.connect(database_url), PERSON, False, 0)
    files = [tmp_path / "records.db", tmp_path / "records.db-wal"]

    def hits() -> list[bool]:
        data = b"".join(file.read_bytes() for file in files if file.exists()).lower()
        return [word.lower().encode() in data for word in (WORDS, PERSON, "plain")]

    assert hits() == [True, True, True]
    assert erase(database_url).is_traceless
    assert hits() == [False, False, True]


class TestFiles:
    """The logs of this host, and what the database has rejected."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "spool"

    def record(self, url: str, folder: Path, *interceptions: list[Any]) -> Recorder:
        recorder = Recorder(settings(url, spool_dir=str(folder)))
        for first, second, *rest in interceptions:
            recorder.begin(first, second)
            for event in rest:
                recorder.record(event)
        wait_until(lambda: is_applied(recorder))
        return recorder

    def text(self, folder: Path) -> bytes:
        return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())

    def erase_files(self, folder: Path, *ids: str) -> ErasedFiles:
        return FileErasure(folder, (), PERSON, ids).run()

    def test_a_living_workers_log_is_erased_in_place(self, database_url: str, folder: Path) -> None:
        recorder = self.record(
            database_url, folder, interception("a", 0, WORDS, PERSON), interception("b", 0, "kept", "bob")
        )
        assert (WORDS.encode() in self.text(folder), PERSON.encode() in self.text(folder)) == (True, True)
        assert self.erase_files(folder) == ErasedFiles(7, 0, 0)
        assert (WORDS.encode() in self.text(folder), PERSON.encode() in self.text(folder)) == (False, False)
        assert b"kept" in self.text(folder)
        recorder.end(Ended("b", now(), status_code=201))
        recorder.close()
        (log,) = log_folder.logs(folder)
        chunk = log_reader.read(log, 0, 1 << 40)
        assert chunk.damaged == 0
        ends = [event for frame in chunk.frames for event in frame.events if isinstance(event, Ended)]
        assert [(end.id, end.status_code) for end in ends] == [("b", 500), ("b", 201)]
        assert rows(database_url)[1]["status_code"] == 201
        assert self.erase_files(folder) == ErasedFiles()

    def test_a_log_that_is_applied_again_after_all_changes_nothing(
        self, database_url: str, folder: Path
    ) -> None:
        recorder = self.record(database_url, folder, interception("a", 0, WORDS, PERSON))
        erase(database_url)
        self.erase_files(folder)
        before = everything(database_url)
        recorder.close()
        execute(database_url, "UPDATE logs SET position = 0")
        again = Recorder(settings(database_url, spool_dir=str(folder)))
        again.start()
        wait_until(lambda: all(row["position"] for row in rows(database_url, tables.logs)[:1]))
        again.close()
        assert [row["id"] for row in rows(database_url)] == ["a"]
        assert not mentions(database_url, WORDS)
        assert before.count("interceptions") == everything(database_url).count("interceptions")

    def test_what_is_not_applied_has_to_stay(self, database_url: str, folder: Path) -> None:
        recorder = self.record(database_url, folder, interception("a", 0, WORDS, PERSON))
        recorder.close()
        (log,) = log_folder.logs(folder)
        log_reader.note_position(log, 10)
        assert self.erase_files(folder) == ErasedFiles(0, 0, 7)
        assert WORDS.encode() in self.text(folder)

    def test_segments_that_are_kept_stay_as_old_as_they_are(self, database_url: str, folder: Path) -> None:
        self.record(database_url, folder, interception("a", 0, WORDS, PERSON)).close()
        (log,) = log_folder.logs(folder)
        (segment,) = log_reader.segments(log)
        log_reader.applied_at(segment)
        before = segment.path.stat()
        assert self.erase_files(folder).frames == 7
        after = segment.path.stat()
        assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
        assert WORDS.encode() not in segment.path.read_bytes()

    def test_rejected_events_are_erased(self, folder: Path, database: str) -> None:
        rejected = folder / log_folder.REJECTED
        rejected.mkdir(parents=True)
        unknown = new_id()
        lines = [
            {"reason": "x", "event": "Started", "id": "1", "initiator_id": PERSON},
            {"reason": "x", "event": "Prompt", "interception_id": "2", "prompt": WORDS},
            {"reason": "x", "event": "Prompt", "interception_id": "3", "prompt": "kept"},
            {"reason": "unknown to this version", "event": f"['New', '{unknown}', '{WORDS}']"},
        ]
        file = rejected / "w.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        size = file.stat().st_size
        assert self.erase_files(folder, "2", unknown) == ErasedFiles(0, 3, 0)
        left = [line for line in file.read_text().splitlines() if line.strip()]
        assert [json.loads(line)["interception_id"] for line in left] == ["3"]
        assert file.stat().st_size == size
        assert self.erase_files(folder, "2", unknown) == ErasedFiles()


def test_a_blank_frame_has_any_length(database: str) -> None:
    for length in [*range(110, 700), *range(65_700, 65_900)]:
        data = blank(length, 5.0)
        (frame,), end, damaged = decode(data, 0, is_end=True)
        assert (len(data), end, damaged, frame.time, frame.unknown) == (length, length, 0, 5.0, ())
        assert {type(event) for event in frame.events} == {GatewayTokenUsed}
