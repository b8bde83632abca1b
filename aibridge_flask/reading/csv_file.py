"""CSV, written to a file as the rows come: it has no bound."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import IO, Any

_IN_MEMORY = 1 << 20
_ROWS = 500  # that are written at a time
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_csv(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> IO[bytes]:
    """Returns a file with a row of names and one for each of `rows`, at its start.

    A large one is on disk, and gone when it is closed. Null is an empty cell.
    """
    file: IO[bytes] = io.BytesIO()
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    values = itemgetter(*names)
    try:
        writer.writerow(names)
        for number, row in enumerate(rows):
            writer.writerow(map(_cell, values(row)))
            if number % _ROWS == 0:
                file = _moved(text, file)
        file = _moved(text, file)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _moved(text: io.StringIO, file: IO[bytes]) -> IO[bytes]:
    """Moves text to the end of the file, and returns the file: one on disk if it becomes large."""
    file.write(text.getvalue().encode())
    text.seek(0)
    text.truncate()
    if not isinstance(file, io.BytesIO) or file.tell() <= _IN_MEMORY:
        return file
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it was sent
    copy.write(file.getbuffer())
    return copy


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
