"""What administrators and users change or look at: a row, and a line of the log, each."""

from __future__ import annotations

import getpass
import json
import logging
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from ..model import EMPTY, new_id
from .events import now
from .rows import clean_text
from .sum_tables import audit

_log = logging.getLogger("aibridge.audit")


def write(
    engine: Engine,
    actor_id: str,
    action: str,
    target: str,
    before: Mapping[str, Any] = EMPTY,
    after: Mapping[str, Any] = EMPTY,
) -> None:
    """Writes who did what; `before` and `after` are JSON values, never secrets. Raises SQLAlchemyError."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        add(connection, actor_id, action, target, before, after)


def add(
    connection: Connection,
    actor_id: str,
    action: str,
    target: str,
    before: Mapping[str, Any] = EMPTY,
    after: Mapping[str, Any] = EMPTY,
) -> None:
    """As `write`, in a transaction of the caller's."""
    names = {"actor_id": actor_id, "action": action, "target": target}
    row = {name: clean_text(text) for name, text in names.items()}
    changes = {"before": dict(before), "after": dict(after)}
    connection.execute(sa.insert(audit).values(id=new_id(), at=now(), **row, **changes))
    _log.info("audit %s", json.dumps({**row, **changes}))  # JSON is one line, whatever the names hold


def command_line_actor() -> str:
    """Returns who runs a command, as the actor of its audit rows."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user without a name
        return "cli:"
