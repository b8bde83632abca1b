"""The credentials that sign requests to Bedrock, and the signatures."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from flask import Flask

from aibridge_flask import ConfigError, create_app
from aibridge_flask.model import UpstreamRequest
from aibridge_flask.providers.bedrock import credentials
from aibridge_flask.providers.bedrock.signature import AwsKeys, Signer
from tests.conftest import MakeApp, Start
from tests.support import bedrock
from tests.support.bedrock import ACCESS_KEY, ASK, MESSAGES, REGION, SECRET_KEY, WHOLE, ask, record, signer
from tests.support.server import PREFIX, wait_until
from tests.support.upstream import ReceivedRequest, Upstream, http_response

ROLE = "arn:aws:iam::123456789012:role/bridge"
ROLE_KEY, ROLE_SECRET, TOKEN = "ASIAROLE0123456789", "role/secret+0123456789", "the/session+token=="
UNAVAILABLE = "the AI provider's credentials cannot be had now. Contact your administrator"

# https://docs.aws.amazon.com/IAM/latest/UserGuide/signature-v4-test-suite.html
PUBLISHED = AwsKeys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
FORM = "application/x-www-form-urlencoded"


@pytest.fixture(autouse=True)
def _no_aws_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


class Aws:
    """STS and Bedrock at one address: hands out role credentials and answers requests."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream, self.seconds, self.is_up = upstream, 3600, True
        self.may_answer = threading.Event()
        self.may_answer.set()
        upstream.handler = self._answer

    def _answer(self, received: ReceivedRequest) -> Iterable[object]:
        if received.target != "/":
            return [http_response(200, WHOLE)]
        if not self.is_up:
            return [
                http_response(403, b"<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>")
            ]
        return [self.may_answer, http_response(200, self._role(), kind="text/xml")]

    def _role(self) -> bytes:
        expires_at = datetime.now(UTC) + timedelta(seconds=self.seconds)
        return (
            "<AssumeRoleResponse><AssumeRoleResult><Credentials>"
            f"<AccessKeyId>{ROLE_KEY}</AccessKeyId><SecretAccessKey>{ROLE_SECRET}</SecretAccessKey>"
            f"<SessionToken>{TOKEN}</SessionToken><Expiration>{expires_at:%Y-%m-%dT%H:%M:%SZ}</Expiration>"
            "</Credentials></AssumeRoleResult></AssumeRoleResponse>"
        ).encode()

    def requests(self, sts: bool) -> list[ReceivedRequest]:
        return [received for received in self.upstream.requests if (received.target == "/") is sts]


@pytest.fixture
def aws(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Aws:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", upstream.url)
    return Aws(upstream)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [credentials.monotonic()]
    monkeypatch.setattr(credentials, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def app_with_role(make_app: MakeApp, upstream: Upstream) -> Flask:
    provider = bedrock.settings(upstream.url, role_arn=ROLE, external_id="ours")
    return make_app(providers=[provider])


@pytest.mark.parametrize(
    ("method", "target", "kind", "body", "signature"),
    [
        ("GET", "/", "", b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("POST", "/", "", b"", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        ("POST", "/", FORM, b"Param1=value1", "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"),
        ("GET", "/?Param2=value2&Param1=value1", "", b"", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"),
    ],
)  # fmt: skip
def test_signatures_are_those_that_aws_publishes(
    monkeypatch: pytest.MonkeyPatch, method: str, target: str, kind: str, body: bytes, signature: str
) -> None:
    signed_at = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: signed_at)
    headers = [("Host", "example.amazonaws.com"), *([("Content-Type", kind)] if kind else [])]
    request = UpstreamRequest(method, f"https://example.amazonaws.com{target}", tuple(headers), body)
    headers_sent = dict(Signer("us-east-1", "service").sign(request, PUBLISHED).headers)
    names = "content-type;host;x-amz-date" if kind else "host;x-amz-date"
    assert headers_sent["X-Amz-Date"] == "20150830T123600Z"
    assert headers_sent["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={names}, Signature={signature}"
    )


def test_a_role_is_assumed_with_the_external_id(app_with_role: Flask, aws: Aws) -> None:
    client = app_with_role.test_client()
    for _ in range(2):
        assert ask(client, ASK).data == WHOLE
    (assume_role,) = aws.requests(sts=True)
    parameters = {"RoleArn": [ROLE], "ExternalId": ["ours"], "RoleSessionName": ["aibridge"]}
    assert parameters.items() <= parse_qs(assume_role.body.decode()).items()
    assert f"Credential={ACCESS_KEY}/" in str(assume_role.header("authorization"))
    assert f"/{REGION}/sts/aws4_request" in str(assume_role.header("authorization"))
    for received in aws.requests(sts=False):
        assert signer(received, ROLE_SECRET, TOKEN) == ROLE_KEY
    assert record(client)["credential_hint"] == "..."


def run_in_threads(count: int, call: Callable[[], int]) -> list[int]:
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(call())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize(("is_up", "status"), [(True, 200), (False, 502)])
def test_parallel_requests_share_one_request_for_a_role(
    app_with_role: Flask, aws: Aws, clock: list[float], is_up: bool, status: int
) -> None:
    aws.is_up = is_up
    assert run_in_threads(8, lambda: ask(app_with_role.test_client(), ASK).status_code) == [status] * 8
    assert len(aws.requests(sts=True)) == 1


def test_credentials_are_renewed_before_they_end(app_with_role: Flask, aws: Aws, clock: list[float]) -> None:
    client = app_with_role.test_client()
    assert ask(client, ASK).status_code == 200
    clock[0] += 3600 - 310
    assert ask(client, ASK).status_code == 200
    assert len(aws.requests(sts=True)) == 1
    clock[0] += 20
    aws.is_up = False
    assert ask(client, ASK).status_code == 200
    assert len(aws.requests(sts=True)) == 2
    clock[0] += 300
    assert ask(client, ASK).status_code == 502
    clock[0] += 5
    aws.is_up = True
    assert ask(client, ASK).status_code == 200
    assert len(aws.requests(sts=False)) == 4


def test_a_refused_role_is_an_error_without_secrets(
    app_with_role: Flask, aws: Aws, caplog: pytest.LogCaptureFixture
) -> None:
    aws.is_up = False
    client = app_with_role.test_client()
    response = ask(client, ASK)
    assert (response.status_code, response.get_json()["error"]) == (
        502,
        {"type": "api_error", "message": UNAVAILABLE},
    )
    assert aws.requests(sts=False) == []
    recorded = record(client)
    assert (recorded["error_type"], recorded["error_message"], recorded["status_code"]) == (
        "unauthorized",
        UNAVAILABLE,
        502,
    )
    assert "provider bedrock: no AWS credentials: ClientError AccessDenied" in caplog.text


def test_not_even_a_debug_log_shows_a_secret(
    app_with_role: Flask, aws: Aws, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        assert ask(app_with_role.test_client(), ASK).status_code == 200
    for secret in (SECRET_KEY, ROLE_SECRET, TOKEN):
        assert secret not in caplog.text
    assert ROLE_SECRET not in repr(AwsKeys(ROLE_KEY, ROLE_SECRET, TOKEN))


def test_the_default_chain_uses_the_environments_keys(
    make_app: MakeApp, aws: Aws, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = bedrock.settings(aws.upstream.url, access_key=None, secret_key=None)
    client = make_app(providers=[provider]).test_client()
    response = ask(client, ASK)
    assert (response.status_code, response.get_json()["error"]["message"]) == (502, UNAVAILABLE)
    for name, value in (
        ("ACCESS_KEY_ID", ROLE_KEY),
        ("SECRET_ACCESS_KEY", ROLE_SECRET),
        ("SESSION_TOKEN", TOKEN),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    clock[0] += 2
    assert ask(client, ASK).status_code == 200
    assert signer(aws.requests(sts=False)[0], ROLE_SECRET, TOKEN) == ROLE_KEY


def test_a_slow_role_blocks_no_other_requests(start: Start, aws: Aws) -> None:
    """Under gevent: other requests are served meanwhile; one request for the role serves all that waited."""
    aws.may_answer.clear()
    providers = [
        bedrock.settings(aws.upstream.url, role_arn=ROLE),
        {"type": "anthropic", "base_url": aws.upstream.url, "keys": [{"value": "sk-ant-0123456789"}]},
    ]
    environ = {"AWS_ENDPOINT_URL_STS": aws.upstream.url, "AWS_EC2_METADATA_DISABLED": "true"}
    server = start(providers=providers, environ=environ)
    body = str(ASK).replace("'", '"').encode()
    waiting = [server.connect() for _ in range(3)]
    for client in waiting:
        client.send("POST", MESSAGES, body)
    wait_until(lambda: len(aws.requests(sts=True)) == 1)
    other = server.connect()
    other.send("POST", "/anthropic/v1/messages", body)
    assert other.body(other.head()[1]) == (WHOLE, True)
    aws.may_answer.set()
    for client in waiting:
        assert client.body(client.head()[1]) == (WHOLE, True)
    assert len(aws.requests(sts=True)) == 1


@pytest.mark.parametrize(("enabled", "is_loaded"), [(True, True), (False, False)])
def test_botocore_is_loaded_only_for_enabled_providers(
    tmp_path: Path, enabled: bool, is_loaded: bool
) -> None:
    provider = {**bedrock.settings("http://127.0.0.1:1"), "enabled": enabled}
    tree = {
        "database_url": f"sqlite:///{tmp_path}/r.db",
        "spool_dir": str(tmp_path),
        "providers": [{"type": "anthropic"}, provider],
    }
    code = f"import sys\nfrom aibridge_flask import create_app\ncreate_app({tree!r})\nprint('botocore' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.split() == [str(is_loaded)]


def test_a_provider_without_its_library_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    tree = {
        "database_url": f"sqlite:///{tmp_path}/r.db",
        "providers": [bedrock.settings("http://127.0.0.1:1")],
    }
    with pytest.raises(ConfigError, match=r"pip install 'aibridge-flask\[bedrock\]'"):
        create_app(tree)


def test_a_disabled_provider_answers_503(make_app: MakeApp, upstream: Upstream) -> None:
    client = make_app(providers=[{**bedrock.settings(upstream.url), "enabled": False}]).test_client()
    assert ask(client, ASK).status_code == client.get(f"{PREFIX}/bedrock/v1/models").status_code == 503
