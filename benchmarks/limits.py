"""What limits cost: a request's CPU with three limits that match, beside one without any.

`python -m benchmarks.limits` prints a table; `--rounds N` for more than three rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

from . import servers
from .run import _rate_figures, _run_load  # the same load and the same figures
from .servers import Server

_CLIENTS, _COUNTS = 16, {"json": 1500, "burst": 500}
_LIMIT = '[[limit]]\nname = "{name}"\nscope = {scope}\nper = "{per}"\n{unit} = 1000000\n'
_LIMITS = "".join(
    _LIMIT.format(name=name, scope=scope, per=per, unit=unit)
    for name, scope, per, unit in (
        ("each per day", '{ actor = "*" }', "day", "usd"),
        ("all per month", '"everyone"', "month", "usd"),
        ("all per minute", '"everyone"', "minute", "requests"),
    )
)
_SETTINGS = {"without": "", "with three limits": _LIMITS}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limits", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in _SETTINGS}
    with tempfile.TemporaryDirectory(prefix="aibridge-bench-") as name:
        upstream = _started(Path(name), "upstream", lambda folder: servers.upstream_server(folder, cores[0]))
        try:
            for number in range(rounds):
                for target, settings in _SETTINGS.items():
                    print(f"round {number + 1} of {rounds}: {target}", file=sys.stderr)
                    server = _started(
                        Path(name),
                        f"{target}{number}",
                        lambda folder, settings=settings: servers.bridge(
                            folder, upstream.port, cores[-1], settings
                        ),
                    )
                    figures[target].append(_measured(server))
                    print(*server.stop(), sep="\n", file=sys.stderr)
        finally:
            upstream.stop()
    _print(figures)


def _started(folder: Path, name: str, start: object) -> Server:
    target_folder = folder / name.replace(" ", "_")
    target_folder.mkdir()
    server: Server = start(target_folder)  # type: ignore[operator]
    return server


def _measured(server: Server) -> dict[str, float]:
    server.first_answer()
    found: dict[str, float] = {}
    for bench, count in _COUNTS.items():
        _run_load("closed", port=server.port, path=server.path, bench=bench, server=0, count=100, clients=1)
        load = {"bench": bench, "server": server.worker, "count": count, "clients": _CLIENTS}
        found |= _rate_figures(bench, _run_load("closed", port=server.port, path=server.path, **load))
        single = {"bench": bench, "server": server.worker, "count": count // 3, "clients": 1}
        alone = _run_load("closed", port=server.port, path=server.path, **single)
        found[f"{bench}_single_cpu_us"] = alone["cpu"] / alone["requests"] * 1e6
    return found


def _print(figures: dict[str, list[dict[str, float]]]) -> None:
    print("| CPU per request, us | " + " | ".join(figures) + " | ratio |\n|---|---|---|---|")
    for bench in _COUNTS:
        for figure in (f"{bench}_cpu_us", f"{bench}_single_cpu_us"):
            medians = [statistics.median(each[figure] for each in rows) for rows in figures.values()]
            print(f"| {figure} | {medians[0]:.0f} | {medians[1]:.0f} | {medians[1] / medians[0]:.2f} |")


if __name__ == "__main__":
    main()
