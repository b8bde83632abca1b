"""Whose fault a database error is: a row's own, or the database's, which may recover."""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy.exc import DBAPIError

# Classes of SQLSTATE: data exception, integrity violation, a row too large for an index.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_ROW_CLASSES = ("22", "23", "54")
_SQLITE_ROW_ERRORS = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
)


def is_row_fault(error: BaseException) -> bool:
    """Whether the database rejects a row.

    Everything else (no table, no grant, locks, time-outs) is waited out.
    """
    original: Any = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(original, sqlite3.Error):
        return isinstance(original, _SQLITE_ROW_ERRORS)
    if isinstance(original, OverflowError | UnicodeError):
        return True
    sqlstate = getattr(original, "sqlstate", None)
    if sqlstate:
        return str(sqlstate)[:2] in _ROW_CLASSES
    return type(original).__name__ in ("DataError", "ProgrammingError", "NotSupportedError")


def is_busy(error: BaseException) -> bool:
    """Whether somebody else holds a lock, or a deadlock was resolved: the same may succeed a moment later."""
    original: Any = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(original, sqlite3.Error):
        return getattr(original, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return getattr(original, "sqlstate", None) in ("40001", "40P01", "55P03")


def describe(error: BaseException) -> str:
    """Returns an error's class and SQLSTATE, without its message, which may hold values."""
    original: Any = error.orig if isinstance(error, DBAPIError) else error
    sqlstate = getattr(original, "sqlstate", None)
    return f"{type(original).__name__} {sqlstate}" if sqlstate else type(original).__name__
