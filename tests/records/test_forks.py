"""Processes that fork while the recorder works: the child starts anew, and keeps nothing of the parent locked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import ROOT

_PROGRAM = """
import json, os, sys, threading, time
from pathlib import Path
from aibridge_flask import config
from aibridge_flask.model import new_id
from aibridge_flask.records import log_folder
from aibridge_flask.records.events import Ended, Started, now
from aibridge_flask.records.recorder import Recorder
from aibridge_flask.waiting import fork_lock

def started(**members):
    return Started(new_id(), "ann", now(), **members)

def fork(work):
    '''Returns the child's exit status, or fails if it hangs.'''
    child = os.fork()
    if child == 0:
        os._exit(not work())
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        time.sleep(0.005)
    os.kill(child, 9)
    raise SystemExit("a child hangs")

def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()

tree = json.loads(sys.argv[1])
recorder = Recorder(config.load(tree))
recorder.begin(started())
wait_until(recorder._running[0].is_applied)
"""
_WHILE_A_THREAD_APPENDS = """
(part,) = recorder._running
def append():
    while True:
        part.log.append((started(user_agent="x" * 100_000),))
for _ in range(2):
    threading.Thread(target=append, daemon=True).start()
def record():
    recorder.begin(started())
    return True
print(sum(fork(record) for _ in range(20)))
os._exit(0)
"""
_WHILE_A_THREAD_HOLDS_THE_FORK_LOCK = """
held, go = threading.Event(), threading.Event()
def hold():
    with fork_lock():
        held.set()
        go.wait()
threading.Thread(target=hold).start()
held.wait()
def record():
    recorder.begin(started())
    (part,) = recorder._running
    return wait_until(part.is_applied)
print(fork(record))
go.set()
"""
_WHILE_A_DEAD_WORKERS_LOG_IS_LOCKED = """
log = Path(tree["spool_dir"]).with_name(new_id())  # where the recorder looks for none
log.mkdir()
reading, writing = os.pipe()
def can_be_taken_over():
    with log_folder.lock_if_dead(log) as is_dead:
        return is_dead
with log_folder.lock_if_dead(log):
    child = os.fork()
    if child == 0:
        os.read(reading, 1)
        os._exit(0)
print(int(not wait_until(can_be_taken_over)))
os.write(writing, b"x")
os.waitpid(child, 0)
"""


@pytest.mark.parametrize(
    "code",
    [_WHILE_A_THREAD_APPENDS, _WHILE_A_THREAD_HOLDS_THE_FORK_LOCK, _WHILE_A_DEAD_WORKERS_LOG_IS_LOCKED],
    ids=["a thread appends", "a thread applies", "a log is taken over"],
)
def test_a_fork_at_a_bad_moment_harms_nobody(tmp_path: Path, code: str) -> None:
    tree = {"database_url": f"sqlite:///{tmp_path}/records.db", "spool_dir": f"{tmp_path}/spool"}
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM + code, json.dumps(tree)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (process.returncode, process.stdout) == (0, "0\n"), process.stderr
