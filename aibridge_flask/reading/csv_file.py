"""CSV, written to a file as the rows come: it has no bound."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

_IN_MEMORY = 1 << 20
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_csv(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> IO[bytes]:
    """Returns a file with a row of names and one for each of `rows`, at its start.

    A large one is on disk, and gone when it is closed. Null is an empty cell.
    """
    file: IO[bytes] = io.BytesIO()
    try:
        file.write(_line(names))
        for row in rows:
            file.write(_line(_cell(row[name]) for name in names))
            if isinstance(file, io.BytesIO) and file.tell() > _IN_MEMORY:
                file = _on_disk(file)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _on_disk(file: io.BytesIO) -> IO[bytes]:
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it was sent
    copy.write(file.getbuffer())
    return copy


def _line(cells: Iterable[Any]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    """Clients and models choose texts: none may be a formula of whoever opens the file.

    >>> _cell("=1+1"), _cell(-1), _cell(True), _cell(None)
    ("'=1+1", -1, 'true', None)
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value
