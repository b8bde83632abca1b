"""Compares the bridge with other proxies in front of the same upstream.

`python -m benchmarks.run` prints Markdown tables; `--quick` runs one short round, `--long` one round with
streams of a minute, `--json FILE` saves all figures. Clients and upstream run on one core, the servers on another.
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
from .processes import memory, with_children
from .report import render_report
from .servers import ROOT, Server

Figures = dict[str, float]
_LOAD_TIMEOUT_SECONDS = 240.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The numbers of requests. `pause`: ms between two events of a stream; `ramp` and `window`: seconds."""

    rounds: int = 3
    json: int = 1000
    burst: int = 400
    single: int = 400
    streams: int = 500
    pause: int = 100
    ramp: float = 2.0
    window: float = 2.5
    leaving: int = 6
    bursts: int = 9


_LONG = Plan(rounds=1, window=60.0)
_QUICK = Plan(rounds=1, json=600, burst=200, single=60, window=1.5, leaving=3, bursts=3)
_CLIENTS, _AT_ONCE = 16, 64
_CASES = {
    "empty": ("json",),
    "tools": ("json", "burst"),
    "unrecorded": ("json", "burst"),
}  # targets that run only some cases
_WARM_UP_REQUESTS = 50


def main() -> None:
    options = _parse_options()
    _raise_file_limit()
    plan = _QUICK if options.quick else _LONG if options.long else Plan()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})
    with tempfile.TemporaryDirectory(prefix="aibridge-bench-") as folder:
        results, notes = _measure(plan, Path(folder), cores[0], cores[-1])
    if options.json:
        options.json.write_text(json.dumps({"plan": str(plan), "results": results}, indent=1))
    print(render_report(results, notes, plan.rounds, servers.describe_machine()))


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--long", action="store_true", help="one round, with streams of a minute")
    parser.add_argument("--json", type=Path, help="where to save all figures")
    return parser.parse_args()


def _raise_file_limit() -> None:
    """Raises the soft limit of open files: the bridge holds three for each open stream."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _measure(
    plan: Plan, folder: Path, own: int, core: int
) -> tuple[dict[str, dict[str, list[float]]], list[str]]:
    """Returns all figures by target and name, one per round, and the problems."""
    results: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    notes: list[str] = []
    upstream = _start(folder, "upstream", lambda target_folder: servers.upstream_server(target_folder, own))
    try:
        for number in range(plan.rounds):
            for name, start in _list_targets(upstream, core):
                print(f"round {number + 1} of {plan.rounds}: {name}", file=sys.stderr)
                server = _start(folder, f"{name}{number}", start)
                cases = _CASES.get(name)
                figures = (
                    _run_cases(plan, server, *cases) if cases else _run_all_cases(plan, server, upstream)
                )
                notes += [f"{name}: {line}" for line in _stop(server, upstream, figures)]
                for figure, value in figures.items():
                    results[name][figure].append(value)
    finally:
        upstream.stop()
    return results, notes


def _start(folder: Path, name: str, start: Callable[[Path], Server]) -> Server:
    target_folder = folder / name
    target_folder.mkdir()
    return start(target_folder)


def _list_targets(upstream: Server, core: int) -> Iterator[tuple[str, Callable[[Path], Server]]]:
    yield "direct", lambda target_folder: upstream
    if shutil.which("nginx"):
        yield "nginx", lambda target_folder: servers.nginx(target_folder, upstream.port, core)
    yield "bridge", lambda target_folder: servers.bridge(target_folder, upstream.port, core)
    yield "tools", lambda target_folder: servers.tools(target_folder, upstream.port, core)
    yield "unrecorded", lambda target_folder: servers.unrecorded(target_folder, upstream.port, core)
    yield "empty", lambda target_folder: servers.empty(target_folder, upstream.port, core)
    yield "naive", lambda target_folder: servers.naive(target_folder, upstream.port, core)


def _run_cases(plan: Plan, server: Server, *benches: str) -> Figures:
    """Runs only these cases."""
    figures: Figures = {"sent": 0}
    for bench in benches:
        count = plan.json if bench == "json" else plan.burst
        target: dict[str, Any] = {"port": server.port, "path": server.path, "bench": bench}
        _run_load("closed", **target, server=0, count=_WARM_UP_REQUESTS, clients=1)
        result = _run_load("closed", **target, server=server.worker, count=count, clients=_CLIENTS)
        single = _run_load("closed", **target, server=server.worker, count=plan.single, clients=1)
        figures |= _rate_figures(bench, result) | _single_figures(bench, single)
        figures["sent"] += _WARM_UP_REQUESTS + count + plan.single
    return figures


def _run_all_cases(plan: Plan, server: Server, upstream: Server) -> Figures:
    """All figures of a server. Memory comes first: a new process has no freed memory to reuse."""
    sent = 0
    start_seconds = server.first_answer()

    def load(case: str, **arguments: Any) -> dict[str, Any]:
        nonlocal sent
        result = _run_load(case, port=server.port, path=server.path, **arguments)
        sent += result["requests"]
        return result

    for bench in ("json", "burst"):
        load("closed", bench=bench, server=0, count=_WARM_UP_REQUESTS, clients=1)
    worker = 0 if server is upstream else server.worker
    figures = {"start_ms": start_seconds * 1e3, "idle_mb": memory(with_children(worker)) / (1 << 20)}
    streams = {"streams": plan.streams, "pause": plan.pause, "ramp": plan.ramp, "window": plan.window}
    figures |= _paced_figures(plan, load("paced", server=worker, **streams))
    for bench, count in (("json", plan.json), ("burst", plan.burst)):
        figures |= _rate_figures(
            bench, load("closed", bench=bench, server=worker, count=count, clients=_CLIENTS)
        )
        figures |= _single_figures(
            bench, load("closed", bench=bench, server=worker, count=plan.single, clients=1)
        )
    at_once = {"bench": "json", "server": 0, "count": _AT_ONCE, "clients": _AT_ONCE}
    bursts = [load("closed", **at_once)["first"] for _ in range(plan.bursts)]
    figures["at_once_ms"] = statistics.median(map(statistics.median, bursts)) / 1e6
    disconnects = load("leave", upstream=upstream.port, pause=200, count=plan.leaving)
    figures["leave_ms"] = statistics.median(disconnects["gone"]) / 1e6
    figures["leave_worst_ms"] = max(disconnects["gone"]) / 1e6
    return figures | {"sent": sent}


def _rate_figures(bench: str, result: dict[str, Any]) -> Figures:
    assert len(result["sizes"]) == 1, f"answers of different sizes: {result['sizes']}"
    return {
        f"{bench}_rate": result["requests"] / result["seconds"],
        f"{bench}_cpu_us": result["cpu"] / result["requests"] * 1e6,
    }


def _single_figures(bench: str, result: dict[str, Any]) -> Figures:
    return {
        f"{bench}_single_cpu_us": result["cpu"] / result["requests"] * 1e6,
        f"{bench}_first_ms": statistics.median(result["first"]) / 1e6,
        f"{bench}_first_p99_ms": _p99(result["first"]) / 1e6,
    }


def _paced_figures(plan: Plan, result: dict[str, Any]) -> Figures:
    delays = result["delays"]
    return {
        "event_cpu_us": result["cpu"] / len(delays) * 1e6,
        "event_ms": statistics.median(delays) / 1e6,
        "event_p99_ms": _p99(delays) / 1e6,
        "stream_kb": result["memory"] / plan.streams / 1024,
        "grown_mb": result["grown"] / (1 << 20),
        "lost": result["lost"],
    }


def _p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * 99 // 100)]


def _run_load(case: str, **arguments: Any) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.load", case, json.dumps(arguments)]
    process = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, timeout=_LOAD_TIMEOUT_SECONDS, check=True
    )
    result: dict[str, Any] = json.loads(process.stdout)
    return result


def _stop(server: Server, upstream: Server, figures: Figures) -> list[str]:
    """Stops a target; returns the problems that it noticed."""
    if server is upstream:
        return []
    problems = server.stop()
    if figures.get("lost"):
        problems.append(f"{figures['lost']:.0f} events did not arrive")
    if server.is_recorded:
        records, ended = server.records()
        if not records == ended == figures["sent"]:
            problems.append(f"{figures['sent']:.0f} requests, {records} records, {ended} of them ended")
    return problems


if __name__ == "__main__":
    main()
