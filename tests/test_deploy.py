"""The files in `deploy/` are valid, and fit the bridge."""

from __future__ import annotations

import json
import re
import shutil
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from aibridge_flask import config
from aibridge_flask.config.load import read_sources
from aibridge_flask.observe.instruments import METRICS
from tests.conftest import MakeApp, providers
from tests.support.dialogue import ASK_BLOCKING, MESSAGES, TOOL_MESSAGE
from tests.support.nginx import Nginx
from tests.support.server import PREFIX, ROOT, Server, free_port
from tests.support.upstream import ReceivedRequest, Upstream, http_response

DEPLOY = ROOT / "deploy"
STREAM_SECONDS = 620  # that a stream may take to finish, with the drain before
UNIT = (DEPLOY / "aibridge.service").read_text()
DOCKERFILE = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
KUBERNETES = [*yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())]


def assert_is_configuration(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable names a setting, and its value is one."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    sources = read_sources()["environment"]
    settings = {name for name in environ if name.startswith("AIBRIDGE_")} - {
        "AIBRIDGE_BIND",
        "AIBRIDGE_WORKERS",
    }
    for name in settings - {"AIBRIDGE_CONFIG"}:
        tree: Any = sources
        for step in name.removeprefix("AIBRIDGE_").lower().split("__"):
            tree = tree[step]
    config.load({})


def test_the_unit_is_what_systemd_takes(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze") or pytest.skip("this machine has no systemd")
    unit = tmp_path / "aibridge.service"
    unit.write_text(UNIT.replace("/opt/aibridge/bin/aibridge", sys.executable))
    told = subprocess.run([analyze, "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (0, "")


def test_the_unit_fits_the_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = dict(re.findall(r"^Environment=(\w+)=(.*)$", UNIT, re.MULTILINE))
    environ.pop("AIBRIDGE_CONFIG")
    assert_is_configuration(environ, monkeypatch)
    assert f"TimeoutStopSec={STREAM_SECONDS}" in UNIT
    assert "ExecReload=/bin/kill -HUP $MAINPID" in UNIT


def test_the_image_runs_as_nobody_and_serves(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its health check is run as it stands there, but for the port."""
    (environ,) = re.findall(r"^ENV (.*)$", DOCKERFILE, re.MULTILINE)
    assert_is_configuration(dict(part.split("=", 1) for part in environ.split()[1:]), monkeypatch)
    assert re.search(r"^USER aibridge$", DOCKERFILE, re.MULTILINE)
    assert DOCKERFILE.rstrip().endswith('CMD ["aibridge", "serve"]')
    (check,) = re.findall(r"HEALTHCHECK .*CMD (\[.*\])", DOCKERFILE)
    command = [part.replace(":8080", f":{server.port}") for part in json.loads(check)]
    assert subprocess.run([sys.executable, *command[1:]], check=False).returncode == 0
    gone = [part.replace(":8080", f":{free_port()}") for part in json.loads(check)]
    ended = subprocess.run([sys.executable, *gone[1:]], capture_output=True, check=False)
    assert ended.returncode != 0


def test_what_the_image_is_built_of_is_there() -> None:
    kept = [
        line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"
    ]
    assert [name for name in kept if not (ROOT / name).exists()] == []
    assert set(re.findall(r"/source/(\S+)", DOCKERFILE)) <= set(kept)


def test_compose_fits_the_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = COMPOSE["services"]["bridge"]
    filled = {name: re.sub(r"\$\{\w+[^}]*\}", "x", value) for name, value in bridge["environment"].items()}
    assert_is_configuration(filled, monkeypatch)
    assert bridge["stop_grace_period"] == f"{STREAM_SECONDS}s"
    assert (DEPLOY / bridge["build"]["context"] / bridge["build"]["dockerfile"]).exists()
    assert {"bridge", "postgres", "redis", "prometheus", "grafana"} == set(COMPOSE["services"])
    named = [volume for each in COMPOSE["services"].values() for volume in each.get("volumes", [])]
    sources = {volume.partition(":")[0] for volume in named}
    assert {source for source in sources if not source.startswith("./")} == set(COMPOSE["volumes"])
    assert all((DEPLOY / source).exists() for source in sources if source.startswith("./"))
    (scrape,) = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    assert scrape["metrics_path"] == f"{PREFIX}/metrics"


def test_the_manifests_fit_the_bridge(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    (stateful,) = (each for each in KUBERNETES if each["kind"] == "StatefulSet")
    spec = stateful["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert (stateful["spec"]["replicas"], spec["terminationGracePeriodSeconds"]) == (2, STREAM_SECONDS)
    for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"]["path"] == PREFIX + path
        assert server.get(path)["status"] == "ok"
    (claim,) = stateful["spec"]["volumeClaimTemplates"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts[claim["metadata"]["name"]] == "/var/lib/aibridge"
    assert spec["securityContext"]["runAsUser"] == int(re.findall(r"--uid (\d+)", DOCKERFILE)[0])
    assert_is_configuration({each["name"]: each["value"] for each in container["env"]}, monkeypatch)
    names = {each["metadata"]["name"] for each in KUBERNETES if each["kind"] == "Service"}
    assert stateful["spec"]["serviceName"] in names


class SignIn:
    """Stands for oauth2-proxy: who has its cookie is Ann."""

    def __init__(self) -> None:
        self.server = Upstream()
        self.server.handler = self._answer

    def _answer(self, received: ReceivedRequest) -> list[bytes]:
        if "session" not in (received.header("Cookie") or ""):
            return [http_response(401, b"")]
        named = ("X-Auth-Request-Email: ann@example.com", "X-Auth-Request-Groups: core,ai-admins")
        return [http_response(202, b"", *named)]


@pytest.fixture
def site(
    shared_upstream: Upstream, upstream: Upstream, tmp_path: Path
) -> Iterator[tuple[str, ssl.SSLContext]]:
    """The address of `deploy/nginx-tls.conf` in front of a bridge, and what trusts its certificate."""
    auth = {"mode": "header", "trusted_proxies": ["127.0.0.1/32"], "admin_groups": ["ai-admins"]}
    (tmp_path / "bridge").mkdir()
    bridge = Server(
        tmp_path / "bridge", {"auth": auth, "providers": providers(upstream.url), "drain_delay": 0}
    )
    sign_in, authority = SignIn(), trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "pem")
    text = (DEPLOY / "nginx-tls.conf").read_text()
    for old, new in {
        "listen 80;": f"listen 127.0.0.1:{free_port()};",
        "listen 443 ssl;": "listen 127.0.0.1:{port} ssl;",
        "server 127.0.0.1:8080 ": f"server 127.0.0.1:{bridge.port} ",
        "http://127.0.0.1:4180": sign_in.server.url,
        "/etc/nginx/ai.example.com.pem": str(tmp_path / "pem"),
        "/etc/nginx/ai.example.com.key": str(tmp_path / "key"),
    }.items():
        assert old in text
        text = text.replace(old, new)
    bridge.headers = {}
    nginx = Nginx(tmp_path, text)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    bridge.headers = {"X-Remote-User": "ann@example.com", "X-Remote-Groups": "ai-admins"}
    bridge.wait_ready()
    yield f"https://127.0.0.1:{nginx.port}{PREFIX}", context
    nginx.stop()
    sign_in.server.close()
    bridge.stop()


def test_who_is_signed_in_is_known_to_the_bridge(
    site: tuple[str, ssl.SSLContext], upstream: Upstream
) -> None:
    url, context = site
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), NoRedirect())
    upstream.enqueue(http_response(200, TOOL_MESSAGE))
    signed_in = {"Cookie": "session=1", "X-Remote-User": "mallory", "X-Remote-Groups": "none"}
    request = urllib.request.Request(url + MESSAGES, ASK_BLOCKING, signed_in)
    with opener.open(request) as response:
        assert response.read() == TOOL_MESSAGE
    with opener.open(urllib.request.Request(f"{url}/me", headers=signed_in)) as response:
        me = json.load(response)
    assert (me["id"], me["groups"], me["admin"]) == ("ann@example.com", ["ai-admins", "core"], True)
    assert status(opener, f"{url}/me", {"X-Remote-User": "mallory"}) == 302
    assert status(opener, f"{url}/metrics", signed_in) == 403
    assert len(upstream.requests) == 1


def status(opener: urllib.request.OpenerDirector, url: str, headers: dict[str, str]) -> int:
    with pytest.raises(urllib.error.HTTPError) as refused:
        opener.open(urllib.request.Request(url, headers=headers))
    with refused.value:
        return refused.value.code


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


@pytest.mark.parametrize("name", ["grafana/dashboard.json", "alerts.yml"])
def test_dashboard_and_alerts_ask_for_metrics_that_there_are(make_app: MakeApp, name: str) -> None:
    """With labels that they have."""
    text = (DEPLOY / name).read_text()
    page = make_app(metrics={"enabled": True}).test_client().get(f"{PREFIX}/metrics").text
    shown = set(re.findall(r"^# HELP (\S+)", page, re.MULTILINE))
    used = {re.sub(r"_bucket$", "", each) for each in re.findall(r"aibridge_[a-z_]+", text)}
    assert used
    assert used <= shown
    labels = {label for metric in METRICS.values() for label in metric.labels}
    asked = {label for group in re.findall(r"by \(([^)]*)\)", text) for label in group.split(", ")}
    assert asked - {"le"} <= labels


def test_dashboard_and_alerts_are_well_formed() -> None:
    panels = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())["panels"]
    assert len({panel["title"] for panel in panels}) == len(panels)
    assert all(0 <= panel["gridPos"]["x"] <= 24 - panel["gridPos"]["w"] for panel in panels)
    (group,) = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    assert all(rule["alert"] and rule["expr"] and rule["annotations"]["summary"] for rule in group["rules"])
