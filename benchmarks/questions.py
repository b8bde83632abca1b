"""Measures what the records API and the dashboard take to answer, at a database that `benchmarks.history` has
filled.

`python -m benchmarks.questions --url sqlite:////tmp/million.db [--rounds 5] [--only ui/]`

Each question is asked by an administrator and by the person with the most records. Prints the medians in
milliseconds as a table, and of pages the kilobytes, without the 17 of what all pages share.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path

from aibridge_flask.records import database, tokens
from tests.support.server import Server

_PERSON = "person0@example.com"
_BY = ("model", "initiator", "group", "client", "provider_name")
_LONG = f"started_after={(datetime.now(UTC) - timedelta(days=89)):%Y-%m-%d}"
_KEYS = (
    *("initiator:person3@example.com", "group:team3", "provider:openai", "provider_name:anthropic"),
    *(
        "model:gpt-5-codex",
        "client:Codex",
        "error_type:timeout",
        "credential_kind:centralized",
        "kind:main",
        "kind:title",
        "kind:compaction",
        "tool:search_docs",
        "tool:Read",
    ),
    *(
        "cost_above:0.01",
        "cost_above:0.1",
        "cost_above:0.5",
        "text:invoice",
        'text:"nightly backup windows"',
        "text:nothing-like-it",
    ),
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
        yield from (f"{path}?q={key}&offset=99900" for key in _KEYS[:6])
    yield from (f"usage?group_by={keys}" for keys in _GROUPS)
    yield "usage?group_by=session&started_after=2026-11-20T00:00:00Z"
    yield "usage?group_by=day&q=kind:main&started_after=2026-11-20T00:00:00Z"
    yield from (f"usage?group_by=model&q={key}" for key in _KEYS[:7])
    yield from ("tools", "tools?group_by=day", "models", "clients", "groups", "audit", "live")


def pages() -> Iterator[str]:
    """The dashboard's."""
    yield from ("ui/", *(f"ui/?group_by={key}&{_LONG}" for key in _BY))
    yield from (f"ui/spend?group_by={key}&{_LONG}" for key in _BY)
    yield from (f"ui/spend?group_by={','.join(keys)}&{_LONG}" for keys in combinations(_BY, 2))
    yield from (
        f"ui/spend?group_by={key}&{_LONG}" for key in ("day", "initiator,day", "initiator,error_type")
    )
    yield "ui/spend?group_by=session&started_after=2026-11-20"
    for path in ("sessions", "interceptions"):
        yield from (f"ui/{path}", f"ui/{path}?{_LONG}")
        yield from (f"ui/{path}?{_LONG}&q={key}" for key in _KEYS[:-2])
    yield from (f"ui/{path}" for path in ("live", "limits", "providers", "tokens"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="the beginning of paths")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="questions", ignore_cleanup_errors=True) as folder:
        asked = [path for path in (*questions(), *pages()) if path.startswith(options.only)]
        _measure(options.url, asked, options.rounds, Path(folder))


def _measure(url: str, asked: Sequence[str], rounds: int, folder: Path) -> None:
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
        print(f"{'question':72} {'admin':>12} {'person':>12}")
        for question in asked:
            times = {asker: _median(server, question, token, rounds) for asker, token in askers.items()}
            print(f"{question:72} {times['admin']:>12} {times['person']:>12}", flush=True)
    finally:
        server.stop()


def _median(server: Server, question: str, token: str, rounds: int) -> str:
    """Returns milliseconds, of a page kilobytes too, or the status of an error."""
    target = question.replace(" ", "%20").replace('"', "%22")
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{server.prefix}/{target}", headers={"X-AIBridge-Token": token}
    )
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                size = len(response.read())
        except urllib.error.HTTPError as error:
            return f"{error.code}"
        took.append(1000 * (time.perf_counter() - began))
    weight = f" {size / 1000:.0f}K" if question.startswith("ui/") else ""
    return f"{statistics.median(took):.0f}{weight}"


if __name__ == "__main__":
    main()
