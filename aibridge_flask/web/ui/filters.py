"""What a page shows, as its URL says it: the names are those of the records API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from ...reading import search
from ...reading.errors import BadQuestion
from ...reading.periods import DAY, HOUR, Period, floor, parse_time
from ...reading.search import Search
from .numbers import date_or_time

TERMS = (
    "initiator",
    "group",
    "provider",
    "provider_name",
    "model",
    "client",
    "credential_kind",
    "error_type",
    "session_id",
    "kind",
    "tool",
    "cost_above",
    "text",
)
PRESETS = {"24 hours": 1, "7 days": 7, "14 days": 14, "30 days": 30, "90 days": 90}
_DEFAULT_DAYS = 7
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)  # no record is older
_PLAIN = ":/@,"  # stand for themselves in a query
_DATE_LENGTH = len("2026-01-31")


@dataclass(frozen=True, slots=True)
class Filters:
    """The terms that everything on a page matches, and its period, which is open if `before` is ()."""

    terms: tuple[tuple[str, str], ...]
    q: str
    after: datetime
    before: tuple[datetime, ...]
    now: datetime
    is_default: bool = False

    @property
    def search(self) -> Search:
        """Raises BadQuestion."""
        found = Search((*search.parse(self.q).terms, *self.terms))
        search.check(found)
        return found

    @property
    def period(self) -> Period:
        return Period((self.after,), self.before)

    @property
    def end(self) -> datetime:
        """The end of the period, now at the latest."""
        return min((*self.before, self.now))

    @property
    def previous(self) -> Period:
        """The period of the same length before, on the hour."""
        begin = self.after - (self.end - self.after)
        return Period((floor(begin, HOUR),), (floor(self.after, HOUR),))

    def parameters(self, **changes: str) -> dict[str, str]:
        """Returns the parameters of a URL that shows the same but for the changes; "-" takes one away."""
        own = {name: value for name, value in (("q", self.q), *self.terms) if value or name == "group"}
        if not self.is_default:
            own["started_after"] = date_or_time(self.after)
            own |= dict(zip(["started_before"], map(date_or_time, self.before), strict=False))
        return {name: value for name, value in {**own, **changes}.items() if value != "-"}

    def whole(self, **changes: str) -> dict[str, str]:
        """As `parameters`, with the period also where it is the default one."""
        return replace(self, is_default=False).parameters(**changes)

    def presets(self) -> Iterator[tuple[str, dict[str, str], bool]]:
        """Yields the periods to choose from: name, parameters, whether it is this one."""
        for name, days in PRESETS.items():
            after = _days_before(self.now, days)
            chosen = {"started_after": date_or_time(after), "started_before": "-"}
            yield name, self.parameters(**chosen), after == self.after and not self.before


def query(parameters: Mapping[str, str]) -> str:
    """
    >>> query({"model": "a b&c", "initiator": "ann@example.com"}), query({})
    ('?model=a+b%26c&initiator=ann@example.com', '')
    """
    return f"?{urlencode(parameters, safe=_PLAIN)}" if parameters else ""


def parse(arguments: Mapping[str, str], days: int = _DEFAULT_DAYS) -> Filters:
    """Returns the filters that a URL's parameters say. Raises BadQuestion."""
    now = datetime.now(UTC)
    terms = tuple(
        (name, arguments[name])
        for name in TERMS
        if arguments.get(name) or (name == "group" and name in arguments)
    )
    if any("\0" in value for _, value in terms):
        raise BadQuestion("q", "a NUL character matches nothing")
    after = _time(arguments, "started_after")
    before = _time(arguments, "started_before")
    found = Filters(
        terms,
        arguments.get("q", ""),
        max(*after, _FIRST) if after else _days_before(before[0] if before else now, days),
        before,
        now,
        is_default=not after and not before,
    )
    if found.period.is_empty or (not before and found.after >= now):
        raise BadQuestion("started_before", "the period ends before it begins")
    return found


def _days_before(moment: datetime, days: int) -> datetime:
    """Returns the beginning of a day, or of an hour for the last 24 hours."""
    if days == 1:
        return floor(moment, HOUR) - timedelta(hours=23)
    return floor(moment, DAY) - timedelta(days=days - 1)


def _time(arguments: Mapping[str, str], name: str) -> tuple[datetime, ...]:
    """A date stands for its first moment."""
    value = arguments.get(name, "").strip()
    if not value:
        return ()
    return (parse_time(name, f"{value}T00:00:00Z" if len(value) == _DATE_LENGTH else value),)
