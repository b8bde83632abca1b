"""What people and models wrote, of an interception: its prompt, thoughts, tool inputs and error messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import sqlalchemy as sa
from sqlalchemy import Connection

from .checkpoint import truncate
from .slices import Slices
from .tables import interceptions, model_thoughts, tool_usages, user_prompts
from .text_index import begin_merge, merge

_TRUNCATIONS, _TRUNCATION_SECONDS = 100, 0.1  # attempts, and the pause between them
DELETED = "deleted"  # in place of a tool's error: whether it failed is counted
_NOT_RUN = "not run: "
_i, _t = interceptions.c, tool_usages.c
_HAS_TOOL_CONTENT = sa.or_(_t.input != "", _t.invocation_error.not_in(("", DELETED, _NOT_RUN + DELETED)))
_WITHOUT_WORDS = sa.case(
    (_t.invocation_error == "", ""),
    (_t.invocation_error.startswith(_NOT_RUN), _NOT_RUN + DELETED),
    else_=DELETED,
)


def without_words(error: str) -> str:
    """Returns what stands in place of a tool's error.

    >>> without_words("not run: the answer"), without_words("no such file"), without_words("")
    ('not run: deleted', 'deleted', '')
    """
    kept = _NOT_RUN if error.startswith(_NOT_RUN) else ""
    return kept + DELETED if error else ""


HAS_CONTENT = sa.or_(
    _i.error_message != "",
    sa.exists().where(user_prompts.c.interception_id == _i.id),
    sa.exists().where(model_thoughts.c.interception_id == _i.id),
    sa.exists().where(_t.interception_id == _i.id, _HAS_TOOL_CONTENT),
)


def delete_content(connection: Connection, ids: Sequence[str]) -> None:
    """Deletes what was written, of these interceptions; what is counted of it stays."""
    connection.execute(sa.delete(user_prompts).where(user_prompts.c.interception_id.in_(ids)))
    connection.execute(sa.delete(model_thoughts).where(model_thoughts.c.interception_id.in_(ids)))
    changed = {"input": "", "invocation_error": _WITHOUT_WORDS}
    connection.execute(
        sa.update(tool_usages).where(_t.interception_id.in_(ids), _HAS_TOOL_CONTENT).values(changed)
    )
    connection.execute(
        sa.update(interceptions).where(_i.id.in_(ids), _i.error_message != "").values(error_message="")
    )


def remove_traces(slices: Slices, renew: Callable[[Connection], None] = lambda connection: None) -> bool:
    """Removes from SQLite's file and log what was deleted in earlier transactions. `renew` is called in each.

    Returns false if a reader keeps the log for long. Raises SQLAlchemyError, Stopped.
    """
    if not slices.is_sqlite:
        return True
    slices.write(begin_merge)
    while slices.write(partial(_merge, renew)):
        pass
    for _ in range(_TRUNCATIONS):
        if truncate(slices.engine):
            return True
        slices.pause(_TRUNCATION_SECONDS)
    return False


def _merge(renew: Callable[[Connection], None], connection: Connection) -> bool:
    renew(connection)
    return merge(connection)
