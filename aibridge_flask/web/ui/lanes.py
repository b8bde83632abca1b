"""The picture of a session: a lane for each agent on one clock, with marks, and their contexts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from markupsafe import Markup

from ...reading.timeline import Moment
from .charts import MAX_SERIES
from .numbers import count, duration
from .texts import line

_WIDTH, _LEFT, _RIGHT = 1200, 150, 10
_LANE, _TOP, _STRIP = 34, 26, 70
_IDLE = timedelta(seconds=90)  # longer pauses are drawn as a break
_BREAK = 16.0
_LEAST = 3.0
_MAX_LANES = 40
_LABEL = 18


@dataclass(frozen=True, slots=True)
class Lane:
    """An agent. `depth` is 0 for the main one, and one more for each that has started it."""

    agent: str
    depth: int
    moments: Sequence[Moment]

    @property
    def name(self) -> str:
        return line(self.agent, _LABEL) if self.agent else "main agent"


class _Clock:
    """Places on the x axis. Pauses in which nothing runs are shortened."""

    def __init__(self, moments: Sequence[Moment]) -> None:
        self._runs: list[tuple[datetime, datetime]] = []
        for moment in moments:
            self._add(moment.started_at, _end(moment))
        room = _WIDTH - _LEFT - _RIGHT - _BREAK * (len(self._runs) - 1)
        busy = sum(((end - begin).total_seconds() for begin, end in self._runs), 0.0)
        self._scale = max(room, 100.0) / (busy or 1.0)

    def _add(self, begin: datetime, end: datetime) -> None:
        if self._runs and begin - self._runs[-1][1] <= _IDLE:
            first, last = self._runs[-1]
            self._runs[-1] = (first, max(last, end))
        else:
            self._runs.append((begin, end))

    def x(self, at: datetime) -> float:
        place = float(_LEFT)
        for begin, end in self._runs:
            if at <= end:
                return place + max(0.0, (at - begin).total_seconds()) * self._scale
            place += (end - begin).total_seconds() * self._scale + _BREAK
        return place - _BREAK

    def breaks(self) -> list[tuple[float, timedelta]]:
        """Returns where pauses are, and how long they were."""
        pairs = zip(self._runs, self._runs[1:], strict=False)
        return [(self.x(end) + _BREAK / 2, after[0] - end) for (_, end), after in pairs]

    def labels(self) -> list[tuple[float, str]]:
        """Returns the times at which runs begin, as far as there is room."""
        found: list[tuple[float, str]] = []
        for begin, _ in self._runs:
            x = self.x(begin)
            if x < _WIDTH - 60 and (not found or x - found[-1][0] > 60):
                found.append((x, f"{begin:%H:%M:%S}"))
        return found


def lanes_of(moments: Sequence[Moment]) -> list[Lane]:
    """Returns the lanes, the main agent first, subagents below the one that has started them."""
    by_agent: dict[str, list[Moment]] = {}
    for moment in moments:
        by_agent.setdefault(moment.agent_id, []).append(moment)
    parents = {agent: own[0].parent_agent_id for agent, own in by_agent.items()}

    def depth(agent: str, seen: frozenset[str] = frozenset()) -> int:
        if not agent or agent in seen or len(seen) > _MAX_LANES:
            return 0
        return 1 + depth(parents.get(agent, ""), seen | {agent})

    ordered = sorted(by_agent, key=lambda agent: (bool(agent), by_agent[agent][0].started_at))
    return [Lane(agent, depth(agent), by_agent[agent]) for agent in ordered]


def picture(moments: Sequence[Moment], lanes: Sequence[Lane]) -> Markup:
    """Returns the lanes and the strip of contexts as SVG."""
    if not moments:
        return Markup("")
    clock, shown = _Clock(moments), lanes[:_MAX_LANES]
    below = _TOP + _LANE * len(shown)
    height = below + _STRIP + 8
    parts = [_grid(clock, below + _STRIP)]
    parts += [_lane(clock, lane, _TOP + _LANE * place) for place, lane in enumerate(shown)]
    parts.append(_contexts(clock, shown, below))
    return Markup(
        '<svg class="lanes" viewBox="0 0 {} {}" role="group" aria-label="Agents of this session over time">'
        "{}</svg>"
    ).format(_WIDTH, height, Markup("").join(parts))


def _end(moment: Moment) -> datetime:
    return moment.ended_at[0] if moment.ended_at else moment.started_at + timedelta(seconds=1)


def _grid(clock: _Clock, bottom: int) -> Markup:
    label = Markup('<text class="tick" x="{:.1f}" y="14">{}</text>')
    pause = Markup('<rect class="pause" x="{:.1f}" y="20" width="6" height="{}"><title>{}</title></rect>')
    parts = [label.format(x, text) for x, text in clock.labels()]
    parts += [
        pause.format(x - 3, bottom - 20, f"nothing for {duration(pause_of.total_seconds() * 1000)}")
        for x, pause_of in clock.breaks()
    ]
    return Markup("").join(parts)


def _lane(clock: _Clock, lane: Lane, y: int) -> Markup:
    indent = 12 * min(lane.depth, 4)
    name = Markup('<text class="lane" x="{}" y="{}"><title>{}</title>{}</text>')
    rule = Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>')
    parts = [
        name.format(indent, y + 20, line(lane.agent or "main agent", 200), lane.name),
        rule.format(_LEFT, _WIDTH - _RIGHT, y + 16, y + 16),
    ]
    parts += [_moment(clock, moment, y) for moment in lane.moments]
    return Markup("").join(parts)


def _moment(clock: _Clock, moment: Moment, y: int) -> Markup:
    x = clock.x(moment.started_at)
    width = max(_LEAST, clock.x(_end(moment)) - x)
    kind = "failed" if moment.error_type else "main" if moment.kind == "main" else "side"
    parts = [
        Markup('<rect class="run {}" x="{:.1f}" y="{}" width="{:.1f}" height="12" rx="2"/>').format(
            kind, x, y + 10, width
        )
    ]
    if moment.kind == "compaction":
        parts.append(Markup('<path class="compaction" d="M{:.1f} {}l5 5 -5 5 -5 -5z"/>').format(x, y + 11))
    if moment.has_prompt:
        parts.append(Markup('<circle class="prompt" cx="{:.1f}" cy="{}" r="4"/>').format(x, y + 4))
    for number, (_, has_failed) in enumerate(moment.tools[:6]):
        tool = Markup('<rect class="tool{}" x="{:.1f}" y="{}" width="3" height="6"/>')
        parts.append(tool.format(" failed" if has_failed else "", x + width - 3 - 5 * number, y + 24))
    return Markup('<a href="#i-{}" tabindex="-1">{}<title>{}</title></a>').format(
        moment.id, Markup("").join(parts), _words(moment)
    )


def _words(moment: Moment) -> str:
    facts = [
        f"{moment.started_at:%H:%M:%S} {line(moment.model, 60)}",
        f"context {count(moment.context)} tokens",
    ]
    if moment.kind != "main":
        facts.append(line(moment.kind))
    if moment.error_type:
        facts.append(f"error: {line(moment.error_type)}")
    if moment.attempts > 1:
        facts.append(f"{moment.attempts} attempts")
    if moment.tools:
        facts.append("tools: " + ", ".join(line(tool, 40) for tool, _ in moment.tools[:6]))
    return "\n".join(facts)


def _contexts(clock: _Clock, lanes: Sequence[Lane], top: int) -> Markup:
    """Returns how many tokens each agent's model has read, over time."""
    highest = max((moment.context for lane in lanes for moment in lane.moments), default=0) or 1
    floor, room = top + _STRIP, _STRIP - 16
    drawn = Markup('<polyline class="line l{}" points="{}"/>')
    parts = [
        Markup('<text class="lane" x="0" y="{}">context</text>').format(top + 26),
        Markup('<text class="tick" x="0" y="{}">up to {} tokens</text>').format(top + 42, count(highest)),
        Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            _LEFT, _WIDTH - _RIGHT, floor, floor
        ),
    ]
    for number, lane in enumerate(lanes):
        points = [
            f"{clock.x(moment.started_at):.1f},{floor - room * moment.context / highest:.1f}"
            for moment in lane.moments
            if moment.context and moment.kind == "main"
        ]
        if len(points) > 1:
            parts.append(drawn.format(number % MAX_SERIES, " ".join(points)))
    return Markup("").join(parts)
