"""Charts as SVG, made on the server: stacked bars over time, parts of a whole, lines.

Colours are classes of the style sheet: `s0`, `s1` … for the series.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from .texts import line

MAX_SERIES = 7  # more are one, "other"
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 6, 10, 26
_TICKS = 4
_LABEL_WIDTH = 64
_GAP, _WIDEST = 0.28, 64
_STEPS = (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10)  # highest values whose quarters are round


@dataclass(frozen=True, slots=True)
class Series:
    """One colour of a chart: a name and a value for each place of the x axis."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Chart:
    """What a chart shows. `unit` stands at the y axis, `show` formats a value of it."""

    title: str
    unit: str
    labels: Sequence[str]
    series: Sequence[Series]
    show: Callable[[float], str]

    def stacked(self) -> Markup:
        """Returns the chart as stacked bars, for wide and for narrow screens."""
        return self._sized(_bars, 1200, 260) + self._sized(_bars, 360, 220)

    def lines(self) -> Markup:
        """Returns the chart as lines, half as wide, for wide and for narrow screens."""
        return self._sized(_lines, 600, 170) + self._sized(_lines, 360, 170)

    def _sized(self, draw: Callable[[Chart, _Frame], Markup], width: int, height: int) -> Markup:
        stacked = draw is _bars
        highest = _highest(self.series, stacked)
        frame = _Frame(width, height, len(self.labels), _ceiling(highest))
        kind = "wide" if width > 500 else "narrow"
        parts = [_axis(self, frame), draw(self, frame), _columns(self, frame)]
        return Markup('<svg class="chart {}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
            kind, width, height, self.title, Markup("").join(parts)
        )


@dataclass(frozen=True, slots=True)
class _Frame:
    width: int
    height: int
    places: int
    highest: float

    @property
    def step(self) -> float:
        return (self.width - _LEFT - _RIGHT) / max(1, self.places)

    def x(self, place: float) -> float:
        return _LEFT + place * self.step

    def y(self, value: float) -> float:
        inner = self.height - _TOP - _BOTTOM
        return _TOP + inner * (1 - value / self.highest)


def _highest(series: Sequence[Series], stacked: bool) -> float:
    columns = list(zip(*(each.values for each in series), strict=True))
    totals = [sum(column) if stacked else max(column) for column in columns]
    return max(totals, default=0)


def _ceiling(value: float) -> float:
    """Returns a round number that is not less, so that ticks are round, too.

    >>> _ceiling(0), _ceiling(7), _ceiling(41), _ceiling(0.3)
    (1, 8.0, 60.0, 0.32)
    """
    if value <= 0:
        return 1
    size = 10.0 ** (len(f"{value:.0f}") - 1) if value >= 1 else 1.0
    while size > value:
        size /= 10
    return next(round(size * step, 9) for step in _STEPS if size * step >= value)


def _axis(chart: Chart, frame: _Frame) -> Markup:
    parts = []
    for tick in range(_TICKS + 1):
        value = frame.highest * tick / _TICKS
        y = frame.y(value)
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
                _LEFT, frame.width - _RIGHT, y, y
            )
        )
        label = Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>')
        parts.append(label.format(_LEFT - 8, y + 4, chart.show(value)))
    parts += _x_labels(chart, frame)
    return Markup("").join(parts)


def _x_labels(chart: Chart, frame: _Frame) -> list[Markup]:
    """Not more than there is room for."""
    every = max(1, -(-len(chart.labels) * _LABEL_WIDTH // (frame.width - _LEFT)))
    label = Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>')
    places = range(0, len(chart.labels), every)
    return [label.format(frame.x(place + 0.5), frame.height - 8, chart.labels[place]) for place in places]


def _bars(chart: Chart, frame: _Frame) -> Markup:
    """Returns one path for each series: a rectangle each would make pages of months twice as large."""
    width = min(frame.step * (1 - _GAP), _WIDEST)
    path = Markup('<path class="s{}" d="{}"/>')
    low, parts = [0.0] * frame.places, []
    for number, series in enumerate(chart.series):
        outline = []
        for place, value in enumerate(series.values):
            if value > 0:
                x, y = frame.x(place + 0.5) - width / 2, frame.y(low[place] + value)
                outline.append(f"M{x:.1f} {y:.1f}h{width:.1f}V{frame.y(low[place]):.1f}h-{width:.1f}z")
                low[place] += value
        parts.append(path.format(_colour(number, series), "".join(outline)))
    return Markup("").join(parts)


def _lines(chart: Chart, frame: _Frame) -> Markup:
    line = Markup('<polyline class="line l{}" points="{}"/>')
    parts = []
    for number, series in enumerate(chart.series):
        points = [
            f"{frame.x(place + 0.5):.1f},{frame.y(value):.1f}" for place, value in enumerate(series.values)
        ]
        parts.append(line.format(_colour(number, series), " ".join(points)))
    return Markup("").join(parts)


def _columns(chart: Chart, frame: _Frame) -> Markup:
    """Returns what is hovered over: a column for each place, with its values as text."""
    hit = Markup('<rect class="hit" x="{:.1f}" y="{}" width="{:.1f}" height="{}"><title>{}</title></rect>')
    height = frame.height - _TOP - _BOTTOM
    return Markup("").join(
        hit.format(frame.x(place), _TOP, frame.step, height, _tip(chart, place))
        for place in range(frame.places)
    )


def _tip(chart: Chart, place: int) -> str:
    values = [(series.name, series.values[place]) for series in chart.series if series.values[place]]
    lines = [f"{line(name, 40)}: {chart.show(value)}" for name, value in values]
    return "\n".join([chart.labels[place], *lines, *([] if lines else ["nothing"])])


def _colour(number: int, series: Series) -> str:
    return "x" if series.name == OTHER else str(number % MAX_SERIES)


OTHER = "other"


def largest(series: Sequence[Series]) -> list[Series]:
    """Returns the largest series, and the rest as one."""
    ordered = sorted(series, key=lambda each: sum(each.values), reverse=True)
    kept, rest = ordered[:MAX_SERIES], ordered[MAX_SERIES:]
    if not rest:
        return kept
    columns = zip(*(each.values for each in rest), strict=True)
    return [*kept, Series(OTHER, list(map(sum, columns)))]


def parts_bar(title: str, parts: Sequence[tuple[str, float]]) -> Markup:
    """Returns one bar of parts of a whole. Negative parts are left out."""
    whole = sum(max(0, value) for _, value in parts) or 1
    rect = Markup('<rect class="s{}" x="{:.2f}" y="0" width="{:.2f}" height="14"/>')
    drawn, x = [], 0.0
    for number, (_, value) in enumerate(parts):
        width = 1000 * max(0, value) / whole
        drawn.append(rect.format(number, x, width))
        x += width
    return Markup(
        '<svg class="parts" viewBox="0 0 1000 14" preserveAspectRatio="none" role="img" aria-label="{}">'
        "{}</svg>"
    ).format(title, Markup("").join(drawn))


def bar(part: float, whole: float) -> Markup:
    """Returns a small bar of a share, for cells of tables."""
    width = 100 * part / whole if whole > 0 else 0
    return Markup(
        '<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="rest" width="100" height="6"/><rect class="s0" width="{:.1f}" height="6"/></svg>'
    ).format(min(100.0, max(0.0, width)))
