"""Measures the bridge beside other ways to the same upstream.

`python -m benchmarks.run` prints Markdown tables; `--quick` takes one short round, `--long` one whose
streams last a minute, `--json FILE` keeps all figures. Clients and upstream run on one core, the servers on another.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import servers
from .processes import family, memory
from .report import tables
from .servers import ROOT, Server

Figures = dict[str, float]
_LIMIT = 240.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is asked for. `pause` is between two events of a stream, in ms."""

    rounds: int = 3
    json: int = 1000
    burst: int = 400
    single: int = 100
    streams: int = 500
    pause: int = 100
    ramp: float = 2.0
    window: float = 2.5
    leaving: int = 6


_LONG = Plan(rounds=1, window=60.0)
_QUICK = Plan(rounds=1, json=600, burst=200, single=60, window=1.5, leaving=3)
_CLIENTS = 16
_PARTS = {"empty": ("json",), "tools": ("json", "burst")}  # the cases of those that have not all
_WARM_UP = 50


def main() -> None:
    options = _options()
    _allow_files()
    plan = _QUICK if options.quick else _LONG if options.long else Plan()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})
    with tempfile.TemporaryDirectory(prefix="aibridge-bench-") as folder:
        results, notes = _measure(plan, Path(folder), cores[0], cores[-1])
    if options.json:
        options.json.write_text(json.dumps({"plan": str(plan), "results": results}, indent=1))
    print(tables(results, notes, plan.rounds, servers.describe()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--long", action="store_true", help="one round, whose streams last a minute")
    parser.add_argument("--json", type=Path, help="where to keep all figures")
    return parser.parse_args()


def _allow_files() -> None:
    """The bridge holds three files for each open stream, more than many soft limits let it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _measure(
    plan: Plan, folder: Path, own: int, core: int
) -> tuple[dict[str, dict[str, list[float]]], list[str]]:
    """All figures by target and name, one a round; what went wrong."""
    results: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    notes: list[str] = []
    upstream = _start(folder, "upstream", lambda place: servers.scripted(place, own))
    try:
        for number in range(plan.rounds):
            for name, start in _targets(upstream, core):
                print(f"round {number + 1} of {plan.rounds}: {name}", file=sys.stderr)
                server = _start(folder, f"{name}{number}", start)
                part = _PARTS.get(name)
                figures = _part(plan, server, *part) if part else _round(plan, server, upstream)
                notes += [f"{name}: {line}" for line in _stop(server, upstream, figures)]
                for figure, value in figures.items():
                    results[name][figure].append(value)
    finally:
        upstream.stop()
    return results, notes


def _start(folder: Path, name: str, start: Callable[[Path], Server]) -> Server:
    place = folder / name
    place.mkdir()
    return start(place)


def _targets(upstream: Server, core: int) -> Iterator[tuple[str, Callable[[Path], Server]]]:
    yield "direct", lambda place: upstream
    if shutil.which("nginx"):
        yield "nginx", lambda place: servers.nginx(place, upstream.port, core)
    yield "bridge", lambda place: servers.bridge(place, upstream.port, core)
    yield "tools", lambda place: servers.tools(place, upstream.port, core)
    yield "empty", lambda place: servers.empty(place, upstream.port, core)
    yield "naive", lambda place: servers.naive(place, upstream.port, core)


def _part(plan: Plan, server: Server, *benches: str) -> Figures:
    """Some cases alone."""
    figures: Figures = {"sent": 0}
    for bench in benches:
        count = plan.json if bench == "json" else plan.burst
        where: dict[str, Any] = {"port": server.port, "path": server.path, "bench": bench}
        _load("closed", **where, server=0, count=_WARM_UP, clients=1)
        found = _load("closed", **where, server=server.worker, count=count, clients=_CLIENTS)
        figures |= _rates(bench, found)
        figures["sent"] += _WARM_UP + count
    return figures


def _round(plan: Plan, server: Server, upstream: Server) -> Figures:
    """One server's figures, the memory first: a fresh process has no free memory to reuse."""
    sent = 0
    started = server.first_answer()

    def load(case: str, **arguments: Any) -> dict[str, Any]:
        nonlocal sent
        found = _load(case, port=server.port, path=server.path, **arguments)
        sent += found["requests"]
        return found

    for bench in ("json", "burst"):
        load("closed", bench=bench, server=0, count=_WARM_UP, clients=1)
    worker = 0 if server is upstream else server.worker
    figures = {"start_ms": started * 1e3, "idle_mb": memory(family(worker)) / (1 << 20)}
    streams = {"streams": plan.streams, "pause": plan.pause, "ramp": plan.ramp, "window": plan.window}
    figures |= _paced(plan, load("paced", server=worker, **streams))
    for bench, count in (("json", plan.json), ("burst", plan.burst)):
        figures |= _rates(bench, load("closed", bench=bench, server=worker, count=count, clients=_CLIENTS))
        single = load("closed", bench=bench, server=0, count=plan.single, clients=1)
        figures[f"{bench}_first_ms"] = statistics.median(single["first"]) / 1e6
        figures[f"{bench}_first_p99_ms"] = _p99(single["first"]) / 1e6
    left = load("leave", upstream=upstream.port, pause=200, count=plan.leaving)
    figures["leave_ms"] = statistics.median(left["gone"]) / 1e6
    figures["leave_worst_ms"] = max(left["gone"]) / 1e6
    return figures | {"sent": sent}


def _rates(bench: str, found: dict[str, Any]) -> Figures:
    assert len(found["sizes"]) == 1, f"answers of different sizes: {found['sizes']}"
    return {
        f"{bench}_rate": found["requests"] / found["seconds"],
        f"{bench}_cpu_us": found["cpu"] / found["requests"] * 1e6,
    }


def _paced(plan: Plan, found: dict[str, Any]) -> Figures:
    delays = found["delays"]
    return {
        "event_cpu_us": found["cpu"] / len(delays) * 1e6,
        "event_ms": statistics.median(delays) / 1e6,
        "event_p99_ms": _p99(delays) / 1e6,
        "stream_kb": found["memory"] / plan.streams / 1024,
        "grown_mb": found["grown"] / (1 << 20),
        "lost": found["lost"],
    }


def _p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * 99 // 100)]


def _load(case: str, **arguments: Any) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.load", case, json.dumps(arguments)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=_LIMIT, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _stop(server: Server, upstream: Server, figures: Figures) -> list[str]:
    """Ends a target; tells what does not add up."""
    if server is upstream:
        return []
    trouble = server.stop()
    if figures.get("lost"):
        trouble.append(f"{figures['lost']:.0f} events did not arrive")
    if (server.folder / "records.db").exists():
        written, ended = server.records()
        if not written == ended == figures["sent"]:
            trouble.append(f"{figures['sent']:.0f} requests, {written} records, {ended} of them ended")
    return trouble


if __name__ == "__main__":
    main()
