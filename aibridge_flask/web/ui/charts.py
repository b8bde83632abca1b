"""Charts as SVG, made on the server: stacked bars over time, parts of a whole, lines.

What is drawn stretches to the width that there is, the texts beside it do not. Colours are classes of the
style sheet: `s0`, `s1` … for the series.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from .texts import line

MAX_SERIES = 7  # more are one, "other"
_TICKS = 4
_STEP, _HEIGHT = 100, 1000  # of the drawing: of a place, and of all
_WIDEST_BAR = 0.72  # of a place
_STEPS = (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10)  # highest values whose quarters are round
_TALL, _LOW, _NARROW = 800, 350, 260  # pixels that labels have at least; on small screens
_CHARACTER, _SPACE = 6.5, 12  # pixels


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
        """Returns the chart as stacked bars."""
        return _chart(self, _bars, _highest(self.series, stacked=True), "tall", _TALL)

    def lines(self) -> Markup:
        """Returns the chart as lines, half as wide."""
        return _chart(self, _lines, _highest(self.series, stacked=False), "low", _LOW)


def _chart(
    chart: Chart, draw: Callable[[Chart, float], Markup], highest: float, kind: str, room: float
) -> Markup:
    top, width = _ceiling(highest), _STEP * len(chart.labels)
    plot = Markup('<svg class="plot" viewBox="0 0 {} {}" preserveAspectRatio="none">{}{}{}</svg>').format(
        width, _HEIGHT, _grid(width), draw(chart, top), _columns(chart)
    )
    return Markup('<div class="chart {}" role="img" aria-label="{}">{}{}{}</div>').format(
        kind, chart.title, _y_labels(chart, top), plot, _x_labels(chart, room)
    )


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


def _grid(width: int) -> Markup:
    lines = (f"M0 {_HEIGHT * tick // _TICKS}h{width}" for tick in range(_TICKS + 1))
    return Markup('<path class="grid" d="{}"/>').format("".join(lines))


def _y_labels(chart: Chart, top: float) -> Markup:
    label = Markup('<text class="tick" x="50" y="{}%" dy=".35em" text-anchor="end">{}</text>')
    ticks = range(_TICKS + 1)
    texts = [label.format(100 - 100 * tick // _TICKS, chart.show(top * tick / _TICKS)) for tick in ticks]
    return Markup('<svg class="y">{}</svg>').format(Markup("").join(texts))


def _x_labels(chart: Chart, room: float) -> Markup:
    """Not more than there is room for, and fewer on small screens."""
    count = len(chart.labels)
    width = _CHARACTER * max(map(len, chart.labels), default=0) + _SPACE
    every = max(1, -int(-count * width // room))
    few = every * max(1, -int(-count * width // (_NARROW * every)))
    label = Markup('<text class="tick{}" x="{:.2f}%" y="15" text-anchor="middle">{}</text>')
    texts = [
        label.format("" if place % few == 0 else " wide", 100 * (place + 0.5) / count, chart.labels[place])
        for place in range(0, count, every)
    ]
    return Markup('<svg class="x">{}</svg>').format(Markup("").join(texts))


def _bars(chart: Chart, top: float) -> Markup:
    """Returns one path for each series: a rectangle each would make pages of months twice as large."""
    places = len(chart.labels)
    width = round(_STEP * min(_WIDEST_BAR, 0.1 + 0.06 * places))  # few would be too broad
    path = Markup('<path class="s{}" d="{}"/>')
    low, parts = [0.0] * places, []
    for number, series in enumerate(chart.series):
        outline = []
        for place, value in enumerate(series.values):
            if value > 0:
                x, floor = _STEP * place + (_STEP - width) // 2, _y(low[place], top)
                low[place] += value
                outline.append(f"M{x} {floor}V{_y(low[place], top)}h{width}V{floor}z")
        parts.append(path.format(_colour(number, series), "".join(outline)))
    return Markup("").join(parts)


def _lines(chart: Chart, top: float) -> Markup:
    line = Markup('<polyline class="line l{}" points="{}"/>')
    parts = []
    for number, series in enumerate(chart.series):
        places = enumerate(series.values)
        points = [f"{_STEP * place + _STEP // 2},{_y(value, top)}" for place, value in places]
        parts.append(line.format(_colour(number, series), " ".join(points)))
    return Markup("").join(parts)


def _y(value: float, top: float) -> int:
    return round(_HEIGHT * (1 - value / top))


def _columns(chart: Chart) -> Markup:
    """Returns what is hovered over: a column for each place, with its values as text."""
    hit = Markup('<rect class="hit" x="{}" width="{}" height="{}"><title>{}</title></rect>')
    places = range(len(chart.labels))
    return Markup("").join(hit.format(_STEP * place, _STEP, _HEIGHT, _tip(chart, place)) for place in places)


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
        '<svg class="bar" aria-hidden="true"><rect class="s0" width="{:.1f}%" height="100%"/></svg>'
    ).format(min(100.0, max(0.0, width)))
