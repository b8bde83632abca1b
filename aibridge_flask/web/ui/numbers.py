"""Numbers and times for people."""

from __future__ import annotations

from datetime import UTC, datetime

_THOUSANDS = ("", " k", " M", " G", " T")
_MICROS = 1_000_000
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def count(value: float) -> str:
    """Returns a number with three digits or so.

    >>> [count(n) for n in (0, 999, 1000, 12345, 999_950, 1_234_567)]
    ['0', '999', '1.0 k', '12.3 k', '1.0 M', '1.2 M']
    """
    size = 0
    while abs(value) >= (1000 if not size else 999.95) and size < len(_THOUSANDS) - 1:
        value, size = value / 1000, size + 1
    return f"{value:.1f}{_THOUSANDS[size]}" if size else f"{value:.0f}"


def money(micros: int | None) -> str:
    """Returns US$ of millionths; small amounts with two digits that say something.

    >>> [money(n) for n in (None, 0, 25, 3400, 34_000, 1_234_567, 12_345_678_901)]
    ['unpriced', '$0', '$0.000025', '$0.0034', '$0.034', '$1.23', '$12,346']
    """
    if micros is None:
        return "unpriced"
    if not micros:
        return "$0"
    dollars, sign = abs(micros) / _MICROS, "-" if micros < 0 else ""
    if dollars >= 1000:
        return f"{sign}${dollars:,.0f}"
    if dollars >= 0.1:
        return f"{sign}${dollars:.2f}"
    text = f"{dollars:.6f}"
    first = next(place for place, digit in enumerate(text) if digit in "123456789")
    return f"{sign}${text[: first + 2].rstrip('0')}"


def duration(milliseconds: float | None) -> str:
    """
    >>> [duration(n) for n in (None, 0.4, 340, 4200, 125_000, 7_500_000)]
    ['–', '0.4 ms', '340 ms', '4.2 s', '2 min 5 s', '2 h 5 min']
    """
    if milliseconds is None:
        return "–"
    if milliseconds < 1000:
        return f"{milliseconds:.1f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"


def share(part: float, whole: float) -> str:
    """
    >>> share(1, 3), share(1, 3000), share(0, 3), share(1, 0)
    ('33 %', '<1 %', '0 %', '–')
    """
    if not whole:
        return "–"
    percent = 100 * part / whole
    return "<1 %" if 0 < percent < 0.5 else f"{percent:.0f} %"


def change(now: float, before: float) -> str:
    """Returns how much more it is than before.

    >>> change(150, 100), change(50, 100), change(5, 0), change(0, 0), change(5000, 1), change(100, 100)
    ('+50 %', '−50 %', 'new', '', '× 5000', '±0 %')
    """
    if not before:
        return "new" if now else ""
    ratio = now / before
    if ratio >= 10:
        return f"× {ratio:.0f}"
    percent = round(100 * (ratio - 1))
    return f"+{percent} %" if percent > 0 else f"−{-percent} %" if percent else "±0 %"


def ago(moment: datetime, now: datetime) -> str:
    """
    >>> at = datetime(2026, 1, 2, tzinfo=UTC)
    >>> [ago(at, at.replace(**later)) for later in ({}, {"minute": 5}, {"hour": 7}, {"day": 9})]
    ['just now', '5 min ago', '7 h ago', '7 days ago']
    """
    seconds = (now - moment).total_seconds()
    if seconds < _MINUTE:
        return "just now" if seconds > -_MINUTE else "later"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE:.0f} min ago"
    if seconds < 2 * _DAY:
        return f"{seconds // _HOUR:.0f} h ago"
    return f"{seconds // _DAY:.0f} days ago"


def utc(moment: datetime) -> str:
    """
    >>> utc(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    '2026-01-02 03:04:05 UTC'
    """
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def date_or_time(moment: datetime) -> str:
    """Returns a time as URLs of the dashboard have it: a date stands for its first moment.

    >>> date_or_time(datetime(2026, 1, 2, tzinfo=UTC)), date_or_time(datetime(2026, 1, 2, 3, tzinfo=UTC))
    ('2026-01-02', '2026-01-02T03:00:00Z')
    """
    return iso(moment).removesuffix("T00:00:00Z")


def iso(moment: datetime) -> str:
    """Returns a time as URLs of the records API have it.

    >>> iso(datetime(2026, 1, 2, tzinfo=UTC))
    '2026-01-02T00:00:00Z'
    """
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
