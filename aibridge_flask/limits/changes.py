"""Changes of limits: each in one transaction, with what was spent in the present period and its audit row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import time

from msgspec.structs import replace
from sqlalchemy import Connection, Engine

from ..config.limits import definition
from ..config.settings import LimitSettings
from ..errors import ConfigError
from ..model import new_id
from ..records import audit
from ..records.events import now
from .definitions import exclude_applier, limits_of, put, remove
from .limit import API, FILE, Limit
from .rebuild import rebuild


class LimitExists(ConfigError):
    """A limit of this name is there already."""

    status, code = 409, "limit_exists"


class LimitOfFile(ConfigError):
    """The limit is of the configuration file, and is changed there."""

    status, code = 409, "limit_of_file"


class NoSuchLimit(ConfigError):
    """There is no limit of this id or name."""

    status, code = 404, "not_found"


def known(engine: Engine) -> tuple[Limit, ...]:
    """Returns all limits. Raises SQLAlchemyError."""
    with engine.connect() as connection:
        return limits_of(connection)


def add(engine: Engine, settings: LimitSettings, by: str) -> Limit:
    """Makes a limit. Raises LimitExists, SQLAlchemyError."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        exclude_applier(connection)
        if any(limit.name == settings.name for limit in limits_of(connection)):
            raise LimitExists(f'there is a limit "{settings.name}" already')
        limit = Limit(new_id(), settings, API, now())
        _write(connection, limit)
        audit.add(connection, by, "limit.create", settings.name, after=definition(settings))
    return limit


def change(engine: Engine, id: str, settings: LimitSettings, by: str) -> Limit:
    """Changes a limit. Raises NoSuchLimit, LimitOfFile, LimitExists, SQLAlchemyError."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        exclude_applier(connection)
        old = _changeable(connection, id)
        if any(limit.name == settings.name and limit.id != old.id for limit in limits_of(connection)):
            raise LimitExists(f'there is a limit "{settings.name}" already')
        if old.name != settings.name:
            remove(connection, old.name)
        limit = replace(old, settings=settings)
        _write(connection, limit)
        details = (definition(old.settings), definition(settings))
        audit.add(connection, by, "limit.change", settings.name, *details)
    return limit


def end(engine: Engine, id: str, by: str) -> Limit:
    """Removes a limit. Raises NoSuchLimit, LimitOfFile, SQLAlchemyError."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        exclude_applier(connection)
        limit = _changeable(connection, id)
        remove(connection, limit.name)
        audit.add(connection, by, "limit.remove", limit.name, before=definition(limit.settings))
    return limit


def sync_file(engine: Engine, wanted: Sequence[LimitSettings]) -> None:
    """Makes the limits of the configuration file those in effect. Raises SQLAlchemyError."""
    with engine.connect() as connection:
        if not _sync(limits_of(connection), wanted):
            return
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        exclude_applier(connection)
        found = limits_of(connection)
        olds = {limit.name: limit for limit in found}
        for name, settings in _sync(found, wanted).items():
            if not settings:
                remove(connection, name)
            elif name in olds:
                _write(connection, replace(olds[name], settings=settings[0], source=FILE))
            else:
                _write(connection, Limit(new_id(), settings[0], FILE, now()))


def rebuild_all(engine: Engine) -> list[str]:
    """Counts what was spent of each limit anew; returns their names. Raises SQLAlchemyError."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        exclude_applier(connection)
        limits = limits_of(connection)
        for limit in limits:
            rebuild(connection, limit, int(time()))
    return [limit.name for limit in limits]


def _sync(found: Sequence[Limit], wanted: Sequence[LimitSettings]) -> Mapping[str, tuple[LimitSettings, ...]]:
    """Returns what is to be written, by name; nothing: it is to be removed."""
    names = {settings.name for settings in wanted}
    gone = [limit.name for limit in found if limit.source == FILE and limit.name not in names]
    same = {limit.settings for limit in found if limit.source == FILE}
    written = {settings.name: (settings,) for settings in wanted if settings not in same}
    return {**dict.fromkeys(gone, ()), **written}


def _write(connection: Connection, limit: Limit) -> None:
    put(connection, limit)
    rebuild(connection, limit, int(time()))


def _changeable(connection: Connection, id: str) -> Limit:
    for limit in limits_of(connection):
        if id in (limit.id, limit.name):
            if limit.source == FILE:
                raise LimitOfFile(f'the limit "{limit.name}" is of the configuration file: change it there')
            return limit
    raise NoSuchLimit(f"there is no limit {id}")
