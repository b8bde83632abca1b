"""What has expired is deleted, what has not is kept, and sums stay."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from aibridge_flask import config
from aibridge_flask.records import database as databases
from aibridge_flask.records import tables
from aibridge_flask.records.events import Prompt, now
from aibridge_flask.records.leases import Lease, LeaseLost
from aibridge_flask.records.purge import InProgress, Purge
from aibridge_flask.records.recorder import Recorder
from aibridge_flask.records.retention import Expired
from aibridge_flask.records.sum_check import SUMS_SINCE
from aibridge_flask.records.sum_tables import leases
from tests.conftest import BOTH_DATABASES
from tests.support.aged import apply, contents, days_ago, execute, interception, slices
from tests.support.records import rows, settings
from tests.support.server import wait_until

pytestmark = BOTH_DATABASES
WHOLE = 6


def run(url: str, how: str = "run", **records: int) -> Expired:
    """A round of a process of its own."""
    with slices(url) as work:
        result: Expired = getattr(Purge(work, config.load({"records": records}).records), how)()
        return result


def state(url: str) -> dict[str, Any]:
    (row,) = rows(url, leases)
    found: dict[str, Any] = row["state"]
    return found


def set_state(url: str, **changes: str) -> None:
    new = {**state(url), **changes}
    execute(url, "UPDATE leases SET state = :state", state=json.dumps(new))


def pass_hours(url: str, hours: float) -> None:
    """The times of the state are as long ago as if so many hours had passed."""
    moved = {
        name: (days_ago(0).fromisoformat(value) - timedelta(hours=hours)).isoformat()
        for name, value in state(url).items()
        if name.endswith("_at")
    }
    set_state(url, **moved)


def test_content_and_whole_interceptions_expire(database_url: str) -> None:
    apply(
        database_url,
        *interception("new", 1),
        *interception("middle", 70),
        *interception("old", 500),
    )
    assert run(database_url, "measure") == Expired(1, 1, rows_start(database_url, "old"))
    assert contents(database_url) == {"new": WHOLE, "middle": WHOLE, "old": WHOLE}
    assert run(database_url) == Expired(1, 1)
    assert contents(database_url) == {"new": WHOLE, "middle": 0}
    assert {row["interception_id"] for row in rows(database_url, tables.token_usages)} == {"new", "middle"}
    assert run(database_url) == Expired()


def rows_start(url: str, id: str) -> tuple[Any, ...]:
    return tuple(row["started_at"] for row in rows(url) if row["id"] == id)


def test_what_is_counted_of_content_stays(database_url: str) -> None:
    apply(database_url, *interception("a", 70))
    run(database_url)
    tools = rows(database_url, tables.tool_usages)
    assert [(row["tool"], row["input"], row["invocation_error"]) for row in tools] == [
        ("Bash", "", ""),
        ("Read", "", "deleted"),
        ("Read", "", "not run: deleted"),
    ]
    assert tools[0]["tool_call_id"] == "call-a"
    (row,) = rows(database_url)
    assert (row["error_type"], row["error_message"], row["initiator_id"]) == ("server_error", "", "ann")
    assert rows(database_url, tables.token_usages)[0]["output_tokens"] == 20


def test_zero_days_keep_for_ever(database_url: str) -> None:
    apply(database_url, *interception("old", 5000))
    assert run(database_url, retention_days=0, usage_retention_days=0) == Expired()
    assert run(database_url, "run_if_due", retention_days=0, usage_retention_days=0) == Expired()
    assert run(database_url, retention_days=1, usage_retention_days=0) == Expired(1, 0)
    assert run(database_url, retention_days=0, usage_retention_days=1) == Expired(0, 1)


def test_many_are_deleted_in_slices(database_url: str) -> None:
    events = [event for number in range(700) for event in interception(f"{number:04}", 100 + number)]
    apply(database_url, *events)
    assert run(database_url) == Expired(300, 400)
    assert set(contents(database_url).values()) == {0}
    assert len(contents(database_url)) == 300


def test_the_first_round_says_what_it_will_delete_and_waits_a_day(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert run(database_url, "run_if_due") == Expired()  # nothing has expired: nothing is said
    apply(database_url, *interception("middle", 70), *interception("old", 500))
    assert "announced_at" not in state(database_url)
    assert caplog.text == ""
    for hours in (0, 1.1, 22.5):
        pass_hours(database_url, hours)
        assert run(database_url, "run_if_due") == Expired()
        assert contents(database_url) == {"middle": WHOLE, "old": WHOLE}
    (line,) = caplog.messages
    assert "1 interceptions" in line
    assert "1 from before" in line
    assert days_ago(500).strftime("the oldest is from %Y-%m-%d") in line
    pass_hours(database_url, 1.6)
    assert run(database_url, "run_if_due") == Expired(1, 1)
    assert run(database_url, "run_if_due") == Expired()


def test_later_rounds_follow_each_hour_and_find_late_logs_within_a_day(database_url: str) -> None:
    run(database_url)
    apply(database_url, *interception("just expired", 60.01), *interception("late", 90))
    pass_hours(database_url, 1.1)
    set_state(database_url, reached=days_ago(60.05).isoformat())
    assert run(database_url, "run_if_due") == Expired(1, 0)
    assert contents(database_url) == {"just expired": 0, "late": WHOLE}
    pass_hours(database_url, 23)
    assert run(database_url, "run_if_due") == Expired(1, 0)
    apply(database_url, Prompt("late", "again", now()))
    pass_hours(database_url, 24.1)
    assert run(database_url, "run_if_due") == Expired(1, 0)


def test_one_process_deletes_at_a_time(database_url: str) -> None:
    apply(database_url, *interception("old", 70))
    other = Lease("retention")
    with slices(database_url) as work:
        assert work.write(other.take)
    assert run(database_url, "run_if_due") == Expired()
    with pytest.raises(InProgress):
        run(database_url)
    execute(database_url, "UPDATE leases SET expires_at = '2020-01-01 00:00:00'")  # it has died
    assert run(database_url) == Expired(1, 0)
    with slices(database_url) as work, pytest.raises(LeaseLost):
        work.write(other.renew)


def test_sums_know_since_when_interceptions_are_whole(database_url: str) -> None:
    def since() -> str:
        with databases.connect(database_url).connect() as connection:
            return databases.read_info(connection).get(SUMS_SINCE, "")

    apply(database_url, *interception("old", 500), *interception("kept", 300))
    assert since() == ""
    run(database_url)
    assert since()[:10] == days_ago(400).strftime("%Y-%m-%d")
    first = since()
    apply(database_url, *interception("late", 450))
    run(database_url, usage_retention_days=440)
    assert since() >= first


def test_records_are_taken_while_much_is_deleted(database_url: str, tmp_path: Path) -> None:
    events = [
        event for number in range(300) for event in interception(f"{number:04}", 100 + number, "w " * 500)
    ]
    apply(database_url, *events)
    recorder = Recorder(settings(database_url, spool_dir=str(tmp_path / "spool")))
    recorder.start()
    recorder.wait_until_applied()
    deletion = threading.Thread(target=run, args=(database_url,))
    deletion.start()
    number = 0
    while deletion.is_alive():
        number += 1
        recorder.begin(*interception(f"new {number}", 0)[:2])
        recorder.wait_until_applied()
    deletion.join()
    recorder.close()
    kept = {id for id, count in contents(database_url).items() if count}
    assert len(kept) == number > 1


def test_a_worker_does_it_by_itself(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aibridge_flask.records.maintenance._FIRST_SECONDS", 0.01)
    monkeypatch.setattr("aibridge_flask.records.maintenance._INTERVAL", 0.05)
    apply(database_url, *interception("old", 70))
    recorder = Recorder(settings(database_url, spool_dir=str(tmp_path / "spool")))
    recorder.start()
    wait_until(lambda: bool(rows(database_url, leases)) and "announced_at" in str(rows(database_url, leases)))
    execute(
        database_url,
        "UPDATE leases SET state = :state",
        state='{"announced_at": "2020-01-01T00:00:00+00:00"}',
    )
    wait_until(lambda: contents(database_url) == {"old": 0})
    recorder.close()


@pytest.mark.only_on("sqlite")  # PostgreSQL overwrites nothing
def test_what_has_expired_is_gone_from_the_file(database_url: str, tmp_path: Path) -> None:
    kept = [event for number in range(200) for event in interception(f"{number:04}", 1)]
    apply(database_url, *kept[:800], *interception("old", 70, "Zyzzyva"), *kept[800:])
    apply(database_url, *interception("older", 500, "Quixotic"))
    files = [tmp_path / "records.db", tmp_path / "records.db-wal"]

    def text() -> bytes:
        return b"".join(file.read_bytes() for file in files if file.exists()).lower()

    assert (b"zyzzyva" in text(), b"quixotic" in text()) == (True, True)
    with databases.connect(database_url).connect() as reader:  # it may not keep the log for ever
        reader.execute(sa.text("SELECT 1"))
        assert run(database_url) == Expired(1, 1)
    assert (b"zyzzyva" in text(), b"quixotic" in text()) == (False, False)
