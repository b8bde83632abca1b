"""A real server between clients and upstreams that send anything: it serves on, and shows and keeps nothing it should not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from tests.support.fuzz.answers import answers
from tests.support.fuzz.bridge import FuzzedBridge
from tests.support.fuzz.clients import OTHER_ROUTES, ROUTES, client_requests, record_queries
from tests.support.fuzz.exchanges import APIS
from tests.support.fuzz.profile import examples


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FuzzedBridge]:
    bridge = FuzzedBridge(tmp_path_factory.mktemp("fuzzed"))
    yield bridge
    bridge.close()


@st.composite
def exchanges(draw: st.DrawFn) -> Any:
    """A request on a bridged route, and an answer of its API."""
    path, api = draw(st.sampled_from(ROUTES))
    return draw(client_requests(path, api)), draw(answers(api))


@st.composite
def other_exchanges(draw: st.DrawFn) -> Any:
    """Any method on any other route."""
    api = draw(st.sampled_from(list(APIS.values())))
    method = draw(
        st.sampled_from(["GET", "GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "TRACE", "PROPFIND"])
    )
    return draw(client_requests(draw(st.sampled_from(OTHER_ROUTES)), api, method)), draw(answers(api))


def test_bridged_requests(bridge: FuzzedBridge) -> None:
    @given(exchanges())
    @examples(700)
    def fuzz(exchange: Any) -> None:
        event(f"status {bridge.exchange(*exchange).status}")

    with bridge.settled():
        fuzz()


def test_other_requests(bridge: FuzzedBridge) -> None:
    @given(other_exchanges())
    @examples(300)
    def fuzz(exchange: Any) -> None:
        event(f"status {bridge.exchange(*exchange).status}")

    with bridge.settled():
        fuzz()


def test_queries_of_records(bridge: FuzzedBridge) -> None:
    @given(record_queries())
    @examples(200)
    def fuzz(target: str) -> None:
        received = bridge.get(target)
        assert received.status in (200, 400, 414)
        assert received.is_complete

    with bridge.settled():
        fuzz()
