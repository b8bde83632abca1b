"""Measures what the records API takes to answer, at a database that `benchmarks.history` has filled.

`python -m benchmarks.questions --url sqlite:////tmp/million.db [--rounds 5]`

Each question is asked by an administrator and by the person with the most records. Prints the medians in
milliseconds as a table, and how late the events of streams come that run beside.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from aibridge_flask.records import database, tokens
from tests.support.server import Server

_PERSON = "person0@example.com"
_KEYS = (
    *("initiator:person3@example.com", "group:team3", "provider:openai", "provider_name:anthropic"),
    *(
        "model:gpt-5-codex",
        "client:Codex",
        "error_type:timeout",
        "kind:title",
        "tool:search_docs",
        "tool:Read",
    ),
    *("cost_above:0.5", "text:invoice", 'text:"nightly backup windows"', "text:nothing-like-it"),
    "started_after:2026-11-01T00:00:00Z",
    "started_before:2026-07-01T00:30:00Z",
)
_GROUPS = (
    *("hour", "day", "month", "initiator", "group", "model", "client", "provider", "provider_name"),
    *("credential_kind", "error_type", "day,model", "initiator,model,client"),
)


def questions() -> Iterator[str]:
    for path in ("interceptions", "sessions"):
        yield f"{path}"
        yield f"{path}?offset=99900"
        yield from (f"{path}?q={key}" for key in _KEYS)
    yield from (f"usage?group_by={keys}" for keys in _GROUPS)
    yield "usage?group_by=session&started_after=2026-11-20T00:00:00Z"
    yield "usage?group_by=day&q=kind:main&started_after=2026-11-20T00:00:00Z"
    yield from (f"usage?group_by=model&q={key}" for key in _KEYS[:7])
    yield from ("tools", "tools?group_by=day", "models", "clients", "groups", "audit", "live")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="questions", ignore_cleanup_errors=True) as folder:
        _measure(options.url, options.rounds, Path(folder))


def _measure(url: str, rounds: int, folder: Path) -> None:
    engine = database.connect(url)
    askers = {
        "admin": tokens.create(engine, "root", True, 1),
        "person": tokens.create(engine, _PERSON, False, 1),
    }
    tree = {
        "database_url": url,
        "auth": {"mode": "token"},
        "drain_delay": 0,
        "spool_dir": str(folder / "spool"),
    }
    server = Server(folder, tree).wait_ready()
    try:
        print(f"{'question':72} {'admin':>8} {'person':>8}")
        for question in questions():
            times = {asker: _median(server, question, token, rounds) for asker, token in askers.items()}
            print(f"{question:72} {times['admin']:>8} {times['person']:>8}", flush=True)
    finally:
        server.stop()


def _median(server: Server, question: str, token: str, rounds: int) -> str:
    """Returns milliseconds, or the status of an error."""
    target = question.replace(" ", "%20").replace('"', "%22")
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{server.prefix}/{target}", headers={"X-AIBridge-Token": token}
    )
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                response.read()
        except urllib.error.HTTPError as error:
            return f"{error.code}"
        took.append(1000 * (time.perf_counter() - began))
    return f"{statistics.median(took):.0f}"


if __name__ == "__main__":
    main()
