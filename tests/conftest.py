"""Fixtures. The scripted upstream and gunicorn are started once and told apart by `reset`."""

from __future__ import annotations

import gc
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask

from aibridge_flask import create_app
from aibridge_flask.records import additions
from aibridge_flask.records import database as databases
from tests.support import bedrock, claude, missing  # noqa: F401 - `missing` looks whether this is CI
from tests.support.mcp import ScriptedMcp
from tests.support.postgres import Postgres, folder_for_data
from tests.support.server import KEEPALIVE_SECONDS, PREFIX, Server
from tests.support.upstream import Upstream


def providers(url: str) -> list[dict[str, object]]:
    """One of each, all at the scripted upstream."""
    return [
        {"type": "anthropic", "base_url": url, "keys": [{"value": "sk-ant-central-0123456789"}]},
        {"type": "openai", "base_url": f"{url}/v1", "keys": [{"value": "sk-oai-central-0123456789"}]},
        {"type": "copilot", "base_url": url},
        {"type": "anthropic", "name": "second", "base_url": f"{url}/base/", "send_actor_headers": True},
        {"type": "openai", "name": "off", "enabled": False, "base_url": url},
    ]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    # a busy machine may take longer than 100 ms to apply what was just recorded
    monkeypatch.setattr("aibridge_flask.records.recorder._READ_AFTER_WRITE_SECONDS", 20.0)
    for name in ("AIBRIDGE_CONFIG", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def shared_upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture
def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.reset()
    return shared_upstream


@pytest.fixture(scope="session")
def shared_server(shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {
        "providers": providers(shared_upstream.url),
        "keepalive_interval": KEEPALIVE_SECONDS,
        "drain_delay": 0,
    }
    server = Server(tmp_path_factory.mktemp("server"), settings, is_forked=True)
    yield server.wait_ready()
    server.stop_cleanly()


@pytest.fixture
def server(shared_server: Server, upstream: Upstream) -> Iterator[Server]:
    """The bridge under gunicorn with gevent, at the scripted upstream."""
    yield shared_server
    shared_server.disconnect()


@pytest.fixture(scope="session")
def shared_docs() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture
def docs(shared_docs: Upstream) -> ScriptedMcp:
    """The MCP server behind `toolbridge`; it has one tool, `add`."""
    shared_docs.reset()
    return ScriptedMcp(shared_docs)


@pytest.fixture(scope="session")
def shared_toolbridge(
    shared_upstream: Upstream, shared_docs: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    settings = {
        "providers": [*providers(shared_upstream.url), bedrock.settings(shared_upstream.url)],
        "keepalive_interval": KEEPALIVE_SECONDS,
        "drain_delay": 0,
        "mcp": {"max_rounds": 3},
        "mcp_servers": [{"name": "docs", "url": ScriptedMcp(shared_docs).url}],
        "metrics": {"enabled": True},
        "prices": claude.PRICES,
    }
    server = Server(tmp_path_factory.mktemp("toolbridge"), settings, is_forked=True)
    yield server.wait_ready("/readyz")
    server.stop_cleanly()


@pytest.fixture
def toolbridge(shared_toolbridge: Server, upstream: Upstream, docs: ScriptedMcp) -> Iterator[Server]:
    """As `server`, and it offers the tools of `docs`."""
    yield shared_toolbridge
    shared_toolbridge.disconnect()


Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path, upstream: Upstream) -> Iterator[Start]:
    """Starts servers of a test's own; they are ended with it. With `is_forked=False` by their command."""
    started: list[Server] = []

    def make(
        *options: str,
        kind: str = "gevent",
        prefix: str = PREFIX,
        environ: dict[str, str] = {},
        is_forked: bool = True,
        **settings: object,
    ) -> Server:
        folder = tmp_path / f"server{len(started)}"
        folder.mkdir()
        tree = {"providers": providers(upstream.url), "drain_delay": 0, **settings}
        server = Server(
            folder, tree, *options, kind=kind, prefix=prefix, environ=environ, is_forked=is_forked
        )
        started.append(server)
        return started[-1].wait_ready()

    yield make
    for server in started:
        server.disconnect()
        server.process.kill()
        server.process.wait()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A socket's path is short: the server's folder is not below pytest's."""
    with tempfile.TemporaryDirectory(prefix="pg", dir=folder_for_data()) as folder:
        server = Postgres(Path(folder))
        yield server
        server.stop()


@pytest.fixture
def database() -> str:
    """`sqlite` or `postgresql`; modules that run on both parametrize it."""
    return "sqlite"


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with this version's tables: most tests take a copy of it."""
    path = tmp_path_factory.mktemp("template") / "records.db"
    _make_tables(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_postgres(postgres: Postgres) -> str:
    url = postgres.new_url()
    _make_tables(url)
    return url


def _make_tables(url: str) -> None:
    engine = databases.connect(url)
    databases.migrate(engine)
    additions.create_indexes(engine)
    engine.dispose()


@pytest.fixture
def database_url(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database of the test's own, with its tables and no rows."""
    if database == "postgresql":
        template = request.getfixturevalue("migrated_postgres")
        yield from _postgres_url(request.getfixturevalue("postgres"), template)
    else:
        shutil.copy(request.getfixturevalue("migrated_sqlite"), tmp_path / "records.db")
        yield f"sqlite:///{tmp_path}/records.db"


@pytest.fixture
def empty_database_url(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database without tables."""
    if database == "postgresql":
        yield from _postgres_url(request.getfixturevalue("postgres"))
    else:
        yield f"sqlite:///{tmp_path}/records.db"


def _postgres_url(postgres: Postgres, *template: str) -> Iterator[str]:
    url = postgres.new_url(*template)
    yield url
    postgres.drop(url)


BOTH_DATABASES = pytest.mark.parametrize("database", ["sqlite", "postgresql"])


def pytest_collection_finish() -> None:
    """Thousands of tests stay as they are: the garbage collector need not look at them again and again."""
    gc.freeze()


# Files that take longest alone, or wait most: they begin first, so that none is left for one process at the end.
_LONG = (
    "tests/web/test_usage.py",
    "tests/ui/test_pages.py",
    "tests/records/test_lineage.py",
    "tests/fuzz/test_bridge.py",
    "tests/web/test_pages.py",
    "tests/test_bounds.py",
    "tests/test_garbage.py",
    "tests/serving/test_lifecycle.py",
    "tests/web/test_openapi.py",
    "tests/serving/test_silent_database.py",
    "tests/records/test_erasure.py",
    "tests/cli/test_demo.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leaves out tests that are about the other database: they are marked `only_on`. Long files come first."""
    items[:] = [item for item in items if _is_about_its_database(item)]
    places = {file: place for place, file in enumerate(_LONG)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))


def _is_about_its_database(item: pytest.Item) -> bool:
    mark, call = item.get_closest_marker("only_on"), getattr(item, "callspec", None)
    return mark is None or call is None or call.params["database"] in mark.args


MakeApp = Callable[..., Flask]


@pytest.fixture(scope="module")
def shared_app(
    shared_upstream: Upstream, migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeApp]:
    """As `make_app`, for tests that do not look at all records: a module's have one for the same settings."""
    made: dict[str, Flask] = {}

    def make(**settings: object) -> Flask:
        key = json.dumps(settings, sort_keys=True)
        if key not in made:
            folder = tmp_path_factory.mktemp("app")
            shutil.copy(migrated_sqlite, folder / "records.db")
            own = {"database_url": f"sqlite:///{folder}/records.db", "spool_dir": str(folder / "spool")}
            made[key] = create_app({**own, "providers": providers(shared_upstream.url), **settings})
        return made[key]

    yield make
    for app in made.values():
        app.extensions["aibridge"].close(app)


@pytest.fixture
def make_app(tmp_path: Path, database_url: str, upstream: Upstream) -> Iterator[MakeApp]:
    """Makes standalone applications in this process; their records are written at the end."""
    made: list[Flask] = []

    def make(**settings: object) -> Flask:
        tree = {
            "database_url": database_url,
            "spool_dir": str(tmp_path / "spool"),
            "providers": providers(upstream.url),
            **settings,
        }
        made.append(create_app(tree))
        return made[-1]

    yield make
    for app in made:
        app.extensions["aibridge"].close(app)
