"""An application of several people, and its past."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from aibridge_flask.records.recorder import Recorder
from tests.conftest import MakeApp
from tests.support.history import History
from tests.support.people import Person, app_for_people
from tests.support.upstream import Upstream


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return app_for_people(make_app)


@pytest.fixture
def ann(app: Flask, upstream: Upstream) -> Person:
    return Person(app, upstream, "ann")


@pytest.fixture
def bob(app: Flask, upstream: Upstream) -> Person:
    return Person(app, upstream, "bob")


@pytest.fixture
def root(app: Flask, upstream: Upstream) -> Person:
    return Person(app, upstream, "root")


@pytest.fixture
def history(app: Flask) -> Iterator[History]:
    """The application waits for what is recorded here: both have one folder."""
    recorder = Recorder(app.config["AIBRIDGE_SETTINGS"])
    yield History(recorder)
    recorder.close()
