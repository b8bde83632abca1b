"""The figures as Markdown: medians of the rounds, with the range if there are several rounds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

Results = Mapping[str, Mapping[str, list[float]]]

_ROWS = (
    ("json_cpu_us", "JSON of 2 KB: CPU µs/request", 0),
    ("json_single_cpu_us", "JSON of 2 KB, one after the other: CPU µs/request", 0),
    ("json_rate", "JSON of 2 KB: requests/s", 0),
    ("burst_cpu_us", "stream of 200 events: CPU µs/stream", 0),
    ("burst_single_cpu_us", "stream of 200 events, one after the other: CPU µs/stream", 0),
    ("burst_rate", "stream of 200 events: streams/s", 0),
    ("event_cpu_us", "500 paced streams: CPU µs/event", 0),
    ("stream_kb", "500 paced streams: KB/stream", 1),
    ("grown_mb", "500 paced streams: growth while they last, MB", 1),
    ("event_ms", "500 paced streams: age of an event, median ms", 2),
    ("event_p99_ms", "500 paced streams: age of an event, p99 ms", 2),
    ("json_first_ms", "JSON: first byte, median ms", 2),
    ("json_first_p99_ms", "JSON: first byte, p99 ms", 2),
    ("burst_first_ms", "stream: first byte, median ms", 2),
    ("burst_first_p99_ms", "stream: first byte, p99 ms", 2),
    ("at_once_ms", "JSON, 64 clients that start at once: first byte, median ms", 1),
    ("leave_ms", "client left: upstream closed after, median ms", 1),
    ("leave_worst_ms", "client left: upstream closed after, worst ms", 1),
    ("start_ms", "cold start, ms", 0),
    ("idle_mb", "idle worker, MB", 1),
)
_NEEDS_SERVER = (
    "json_cpu_us",
    "json_single_cpu_us",
    "burst_cpu_us",
    "burst_single_cpu_us",
    "event_cpu_us",
    "stream_kb",
    "grown_mb",
    "start_ms",
    "idle_mb",
)
_RATIOS = (
    ("JSON of 2 KB, CPU", "json_cpu_us", 0.42),
    ("stream of 200 events, CPU", "burst_cpu_us", 0.20),
    ("paced event, CPU", "event_cpu_us", 0.85),
    ("open stream, memory", "stream_kb", 0.55),
    ("added time to first byte, 64 clients at once, median", "at_once_ms", 0.5),
)
"""Of the naive proxy's figures."""
_TARGETS = (
    ("added time to first byte, JSON, median", "json_first_ms", 1, "ms"),
    ("added time to first byte, stream, median", "burst_first_ms", 1, "ms"),
    ("age of an event at 500 streams, p99", "event_p99_ms", 10, "ms"),
    ("client left, upstream closed after, median", "leave_ms", 5, "ms"),
    ("cold start", "start_ms", 1500, "ms"),
    ("idle worker, memory", "idle_mb", 75, "MB"),
)


def render_report(results: Results, notes: list[str], rounds: int, machine: str) -> str:
    """The whole report. `notes` are the problems that were noticed."""
    problems = "\n".join(f"- {note}" for note in notes) or "- none: all events and records arrived"
    return (
        f"{machine}, {rounds} round(s), medians\n\n{_target_table(results)}\n\n{_figure_table(results)}\n\n"
        f"Trouble:\n{problems}"
    )


def _target_table(results: Results) -> str:
    lines = ["| | target | bridge | |", "|---|---|---|---|"]
    for title, figure, target in _RATIOS:
        ratio = _told(results, "bridge", title, figure) / _told(results, "naive", title, figure)
        shown = f"≤ {target:.2f} of the naive proxy's | {ratio:.2f}"
        lines.append(f"| {title} | {shown} | {_verdict(ratio, target)} |")
    for title, figure, target, unit in _TARGETS:
        value = _told(results, "bridge", title, figure)
        shown = f"≤ {target} {unit} | {value:.{0 if target > 30 else 2}f} {unit}"
        lines.append(f"| {title} | {shown} | {_verdict(value, target)} |")
    return "\n".join(lines)


def _told(results: Results, name: str, title: str, figure: str) -> float:
    without = _median(results, "direct", figure) if title.startswith("added") else 0.0
    return _median(results, name, figure) - without


def _verdict(value: float, target: float) -> str:
    return "reached" if value <= target else "not reached"


def _figure_table(results: Results) -> str:
    names = list(results)
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for figure, title, digits in _ROWS:
        cells = [_cell(results, name, figure, digits) for name in names]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(results: Results, name: str, figure: str, digits: int) -> str:
    values = results[name].get(figure, [])
    if not values or (name == "direct" and figure in _NEEDS_SERVER):
        return "–"
    middle = f"{statistics.median(values):.{digits}f}"
    low, high = min(values), max(values)
    return f"{middle} ({low:.{digits}f}-{high:.{digits}f})" if low < high else middle


def _median(results: Results, name: str, figure: str) -> float:
    return statistics.median(results[name][figure])
