"""Metrics of several workers: every worker's page shows the sums of all."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
import urllib.error
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from tests.conftest import Start, providers
from tests.support.dialogue import ASK_BLOCKING, MESSAGES, TOOL_MESSAGE
from tests.support.records import write_dead_workers_spool
from tests.support.scrape import Page, scrape
from tests.support.server import TIMEOUT_SECONDS, Server, wait_until
from tests.support.streams import StreamReader, check_complete, open_streams
from tests.support.upstream import Upstream, http_response

ON = {"enabled": True}


def ask(server: Server, model: str = "m") -> int:
    """Uses a new connection: any worker may serve it."""
    client = server.connect()
    client.send("POST", MESSAGES, json.dumps({"model": model}).encode())
    status, headers = client.head()
    client.body(headers)
    client.close()
    return status


def read_from_all(server: Server, read: Callable[[Page], object]) -> set[object]:
    """The set of values that `read` returns for 20 scrapes, which all workers take part in."""
    return {read(scrape(server)) for _ in range(20)}


def totals(page: Page) -> tuple[float, ...]:
    names = ("interceptions_total", "interceptions_duration_seconds_count", "overhead_seconds_count")
    return tuple(page.sum(name) for name in names)


def reload(server: Server) -> None:
    """Replaces both workers."""
    wait_until(lambda: len(server.workers()) == 2)
    old = set(server.workers())
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(server.workers()) == 2 and not old & set(server.workers()))


def open_streams_on_both(server: Server, upstream: Upstream, go: threading.Event) -> list[StreamReader]:
    """Opens 30 streams, which both workers share."""
    streams = open_streams(server, upstream, 30, go)
    wait_until(lambda: scrape(server).sum("interceptions_inflight") == 30)
    return streams


@pytest.mark.parametrize(("kind", "own_folder"), [("gevent", True), ("gevent", False), ("gthread", False)])
def test_two_hundred_requests_to_two_workers_add_up(
    start: Start, upstream: Upstream, tmp_path: Path, kind: str, own_folder: bool
) -> None:
    upstream.handler = lambda received: [http_response(200, TOOL_MESSAGE)]
    (tmp_path / "temp").mkdir()
    folder = tmp_path / "common"
    environ = {"TMPDIR": str(tmp_path / "temp")}
    if not own_folder:
        folder.mkdir()
        environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    server = start("--workers=2", kind=kind, metrics=ON, environ=environ)

    def send_requests() -> None:
        client = server.connect()
        for _ in range(25):
            client.send("POST", MESSAGES, ASK_BLOCKING)
            client.body(client.head()[1])

    threads = [threading.Thread(target=send_requests) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counter_files = [] if own_folder else list(folder.glob("counter_*.db"))
    assert read_from_all(server, totals) == {(200, 200, 200)}
    page = scrape(server)
    assert page.by_label("tokens_total", "type")["input"] == 1000
    assert page.sum("non_injected_tool_selections_total") == 200
    assert page.sum("interceptions_inflight") == 0
    assert page.value("key_pool_failover_attempts_count", provider="anthropic") == 200
    assert page.value("records_lost_total") == 0
    assert "pid=" not in page.text
    assert own_folder or len(counter_files) == 2
    server.stop()
    assert list((tmp_path / "temp").iterdir()) == []
    assert own_folder or folder.exists()


def test_a_killed_workers_counts_stay_and_its_inflight_requests_are_dropped(
    start: Start, upstream: Upstream
) -> None:
    server = start("--workers=2", metrics=ON)
    upstream.handler = lambda received: [http_response(200, b"{}")]
    assert [ask(server) for _ in range(40)] == [200] * 40
    go = threading.Event()
    streams = open_streams_on_both(server, upstream, go)
    victim, *_ = server.workers()
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in server.workers() and len(server.workers()) == 2)
    wait_until(lambda: any(not stream.is_alive() for stream in streams))
    wait_until(
        lambda: scrape(server).sum("interceptions_inflight") == sum(stream.is_alive() for stream in streams)
    )
    assert {count for count, *_ in read_from_all(server, totals)} == {40}
    go.set()
    for stream in streams:
        stream.join(TIMEOUT_SECONDS)
    complete = sum(stream.is_complete for stream in streams)
    assert 0 < complete < 30
    wait_until(lambda: read_from_all(server, totals) == {(40 + complete, 40 + complete, 40 + 30)})
    assert scrape(server).sum("interceptions_inflight") == 0


def test_the_empty_file_of_a_starting_worker_is_skipped(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "common"
    folder.mkdir()
    server = start(metrics=ON, environ={"PROMETHEUS_MULTIPROC_DIR": str(folder)})
    (folder / "counter_4242.db").touch()
    assert scrape(server).value("records_lost_total") == 0


def test_reloads_lose_nothing_and_leave_no_files(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    folder = tmp_path / "common"
    folder.mkdir()
    labels = mmap_key("aibridge_interceptions", "aibridge_interceptions_total", ["model"], ["old"], "")
    earlier = MmapedDict(str(folder / "counter_1.db"))
    earlier.write_value(labels, 7.0, 0.0)
    earlier.close()
    (folder / "somebodys_records.db").write_text("no counts")
    server = start("--workers=2", metrics=ON, environ={"PROMETHEUS_MULTIPROC_DIR": str(folder)})
    go = threading.Event()
    streams = open_streams_on_both(server, upstream, go)
    old = set(server.workers())
    server.configure(metrics=ON, providers=providers(upstream.url)[:1])
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(set(server.workers()) - old) == 2)
    wait_until(lambda: server.log.read_text().count("Booting worker") == 4)
    assert scrape(server).sum("interceptions_inflight") == 30
    go.set()
    check_complete(streams)
    wait_until(lambda: not old & set(server.workers()))
    upstream.handler = lambda received: [http_response(200, b"{}")]
    for count in range(31, 33):
        assert ask(server) == 200
        assert read_from_all(server, totals) == {(count, count, count)}
        reload(server)
        assert read_from_all(server, totals) == {(count, count, count)}
    page = scrape(server)
    assert page.sum("interceptions_inflight") == 0
    assert page.by_label("provider_info", "provider_name") == {"anthropic": 1}
    # one file per worker, and one for all dead workers
    wait_until(lambda: len(list(folder.glob("counter_*.db"))) == 3)
    assert (folder / "somebodys_records.db").read_text() == "no counts"


def test_metrics_can_be_turned_on_by_a_reload(start: Start, upstream: Upstream) -> None:
    server = start("--workers=2")
    with pytest.raises(urllib.error.HTTPError) as caught:
        scrape(server)
    assert caught.value.code == 404
    caught.value.close()
    server.configure(metrics=ON)
    reload(server)
    upstream.handler = lambda received: [http_response(200, b"{}")]
    assert [ask(server) for _ in range(10)] == [200] * 10
    assert read_from_all(server, totals) == {(10, 10, 10)}


def test_a_new_masters_counts_start_at_zero(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "temp").mkdir()
    environ = {"TMPDIR": str(tmp_path / "temp")}
    server = start("--pid", str(tmp_path / "pid"), metrics=ON, environ=environ)
    upstream.handler = lambda received: [http_response(200, b"{}")]
    assert ask(server) == 200
    server.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: server.log.read_text().count("Booting worker") == 2)
    successor = int((tmp_path / "pid.2").read_text())
    try:
        server.stop()
        assert scrape(server).sum("interceptions_total") == 0
        assert ask(server) == 200
        assert scrape(server).sum("interceptions_total") == 1
    finally:
        os.kill(successor, signal.SIGTERM)
    wait_until(lambda: not list((tmp_path / "temp").iterdir()))


def test_a_key_cooling_down_in_one_worker_shows_on_every_page(start: Start, upstream: Upstream) -> None:
    (provider, *_) = providers(upstream.url)
    keys = [{"value": f"sk-ant-{letter}-0123456789"} for letter in "ab"]
    server = start("--workers=2", metrics=ON, providers=[{**provider, "keys": keys}])

    def states(page: Page) -> tuple[float, ...]:
        counts = page.by_label("key_pool_state", "state")
        return counts["valid"], counts["temporary"], counts["unauthorized"]

    assert read_from_all(server, states) == {(2, 0, 0)}
    upstream.enqueue(http_response(429, b"{}", "Retry-After: 4"))
    upstream.enqueue(http_response(200, b"{}"))
    assert ask(server) == 200
    assert read_from_all(server, states) == {(1, 1, 0)}
    wait_until(lambda: states(scrape(server)) == (2, 0, 0))
    assert read_from_all(server, states) == {(2, 0, 0)}
    assert read_from_all(server, lambda page: page.sum("key_pool_state_transitions_total")) == {1}


def test_a_breaker_opened_by_one_worker_shows_on_every_page(start: Start, upstream: Upstream) -> None:
    (provider, *_) = providers(upstream.url)
    limits = {"failure_threshold": 1, "timeout": 300.0}
    server = start("--workers=2", metrics=ON, providers=[{**provider, "circuit_breaker": limits}])
    upstream.handler = lambda received: [http_response(503, b"{}")]
    assert ask(server) == 503
    names = ("circuit_breaker_state", "circuit_breaker_trips_total")
    assert read_from_all(server, lambda page: tuple(page.sum(name) for name in names)) == {(1, 1)}


def test_records_spooled_for_a_locked_database_show_on_every_page(start: Start, upstream: Upstream) -> None:
    server = start("--workers=2", metrics=ON)
    upstream.handler = lambda received: [http_response(200, TOOL_MESSAGE)]
    lock = sqlite3.connect(server.folder / "records.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    for _ in range(10):
        assert ask(server) == 200
    assert read_from_all(server, lambda page: page.value("records_spooled")) == {40}
    os.kill(server.workers()[0], signal.SIGKILL)
    wait_until(lambda: len(server.workers()) == 2)
    assert read_from_all(server, lambda page: page.value("records_spooled")) == {40}
    lock.execute("ROLLBACK")
    lock.close()
    for pid in server.workers():
        os.kill(pid, signal.SIGTERM)  # their successors apply the records of dead workers at once
    wait_until(lambda: scrape(server).value("records_spooled") == 0)
    assert scrape(server).value("records_lost_total") == 0


def test_the_writers_thread_reports_losses_under_gevent(start: Start, tmp_path: Path) -> None:
    write_dead_workers_spool(tmp_path / "spool", b"junk\n", b"junk\n")
    server = start("--workers=2", metrics=ON, spool_dir=str(tmp_path / "spool"))
    wait_until(lambda: read_from_all(server, lambda page: page.value("records_lost_total")) == {2})
