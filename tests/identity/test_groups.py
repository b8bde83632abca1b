"""The groups of an actor: from a token, a trusted proxy's header, or a host's loader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request

from aibridge_flask import Actor
from aibridge_flask.identity import loader_for, require_actor
from aibridge_flask.records import audit, tokens
from aibridge_flask.records import database as databases
from aibridge_flask.records.recorder import Recorder
from aibridge_flask.records.sum_tables import audit as audit_table
from tests.conftest import BOTH_DATABASES, MakeApp
from tests.support.records import rows, settings
from tests.support.server import PREFIX
from tests.support.upstream import Upstream, http_response

PEER = "10.1.2.3"


@pytest.fixture
def recorder(database_url: str, tmp_path: Path) -> Iterator[Recorder]:
    recorder = Recorder(settings(database_url, spool_dir=str(tmp_path / "spool")))
    yield recorder
    recorder.close()


def identify(recorder: Recorder, auth: dict[str, object], **headers: str) -> Actor:
    """The actor of a request with these headers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    load = loader_for(settings("sqlite:///unused.db", auth=auth), recorder)
    with Flask("host").test_request_context(headers=named, environ_base={"REMOTE_ADDR": PEER}):
        return require_actor(load, request)


@pytest.mark.parametrize(
    ("header", "groups"),
    [
        ("core", ("core",)),
        ("web, core ,web,", ("core", "web")),
        ("gr\xc3\xbcn", ("gr\u00fcn",)),
        ("a\x07b,ok," + "x" * 257, ("ok",)),
        (" , ", ()),
    ],
)
def test_a_trusted_proxy_names_the_groups(recorder: Recorder, header: str, groups: tuple[str, ...]) -> None:
    auth = {"mode": "header", "trusted_proxies": [PEER]}
    actor = identify(recorder, auth, X_Remote_User="ann", X_Remote_Groups=header)
    assert actor == Actor("ann", groups=groups)


def test_members_of_a_group_may_be_admins(recorder: Recorder) -> None:
    auth = {"mode": "header", "trusted_proxies": [PEER], "groups_header": "X-Teams", "admin_groups": ["ops"]}
    assert identify(recorder, auth, X_Remote_User="ann", X_Teams="dev,ops").admin
    assert not identify(recorder, auth, X_Remote_User="ann", X_Teams="dev", X_Remote_Groups="ops").admin


def test_the_groups_reach_no_provider(make_app: MakeApp, upstream: Upstream) -> None:
    auth = {"mode": "header", "trusted_proxies": [PEER], "groups_header": "X-Teams"}
    client = make_app(auth=auth).test_client()
    upstream.enqueue(http_response(200, b"{}"))
    headers = {"X-Remote-User": "ann", "X-Teams": "secret-team"}
    path = f"{PREFIX}/second/v1/messages"
    asked = client.post(
        path,
        data=b'{"model":"m","messages":[]}',
        headers={**headers, "X-Api-Key": "sk-own"},
        environ_base={"REMOTE_ADDR": PEER},
        buffered=True,
    )
    assert asked.status_code == 200
    assert "secret-team" not in str(vars(upstream.requests[0]))


def test_a_loader_may_name_anything_as_a_group() -> None:
    class Name(str):
        __slots__ = ()

    actor = Actor("ann", groups=[Name("b"), 7, "b", ""])  # type: ignore[arg-type]
    assert actor.groups == ("7", "b")
    assert {type(group) for group in actor.groups} == {str}


@BOTH_DATABASES
class TestTokens:
    @pytest.fixture
    def engine(self, database_url: str) -> Any:
        return databases.connect(database_url)

    def test_a_token_gives_its_groups(self, recorder: Recorder, engine: Any) -> None:
        token = tokens.create(engine, "ann", False, 0, ["web", "core", "web"])
        actor = identify(recorder, {"mode": "token"}, X_AIBridge_Token=token)
        (stored,) = tokens.list_tokens(engine)
        assert actor == Actor("ann", groups=("core", "web"), token_id=stored.id)

    def test_a_token_of_the_version_before_has_none(self, engine: Any, database_url: str) -> None:
        tokens.create(engine, "ann", False, 0)
        with engine.connect().execution_options(writes=True) as connection, connection.begin():
            connection.exec_driver_sql("UPDATE gateway_tokens SET groups = NULL")
        assert next(tokens.list_tokens(engine)).groups == ()

    def test_changes_of_tokens_are_audited(
        self, engine: Any, database_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "aibridge.audit")
        token = tokens.create(engine, "ann", True, 30, ["core"], by="cli:root")
        (stored,) = tokens.list_tokens(engine)
        assert tokens.revoke(engine, stored.id, by="boss\nforged line")
        assert not tokens.revoke(engine, stored.id, by="boss")
        created, revoked = sorted(rows(database_url, audit_table), key=lambda row: row["at"])
        names = ("actor_id", "action", "target")
        assert [created[name] for name in names] == ["cli:root", "token.create", stored.id]
        assert created["after"] == {"user": "ann", "admin": True, "groups": ["core"], "days": 30}
        assert [revoked[name] for name in names] == ["boss\nforged line", "token.revoke", stored.id]
        assert (revoked["before"], revoked["after"]) == ({}, {})
        assert [len(line.splitlines()) for line in caplog.messages] == [1, 1]
        assert token not in str([*rows(database_url, audit_table), caplog.messages])

    def test_any_text_can_be_audited(self, engine: Any, database_url: str) -> None:
        audit.write(engine, "a\0\ud800", "x", "y", {"a": 1}, {"a": [None, "\U0001f600"]})
        (row,) = rows(database_url, audit_table)
        assert (row["actor_id"], row["before"]) == ("a\ufffd?", {"a": 1})
