"""The wheel holds all that the bridge needs, and serves in an environment and a folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import gunicorn
import pytest
import yaml

from aibridge_flask.version import VERSION
from tests.support.server import PREFIX, ROOT, answers, free_port, wait_until

_CLEAN = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in a copy, since building leaves files beside the sources."""
    folder = tmp_path_factory.mktemp("package")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(
        ROOT / "aibridge_flask", folder / "aibridge_flask", ignore=shutil.ignore_patterns("__pycache__")
    )
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index")
    subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--wheel-dir=dist", "."], cwd=folder, check=True
    )
    (built,) = (folder / "dist").iterdir()
    return built


def test_it_holds_every_file_and_the_version(wheel: Path) -> None:
    package = ROOT / "aibridge_flask"
    files = {
        path.relative_to(ROOT).as_posix()
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    with zipfile.ZipFile(wheel) as archive:
        info = f"aibridge_flask-{VERSION}.dist-info"
        packed = {name for name in archive.namelist() if not name.startswith(info)}
        facts = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
    assert packed == files
    assert (facts["Version"], facts["License-Expression"]) == (VERSION, "Apache-2.0")
    assert {"postgres", "redis", "bedrock", "tracing"} <= set(facts.get_all("Provides-Extra", []))


def test_the_version_is_that_of_the_changelog_and_the_manifests() -> None:
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    assert next(line for line in headings if "Unreleased" not in line).startswith(f"## {VERSION} ")
    manifests = yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text())
    (spec,) = (each["spec"] for each in manifests if each["kind"] == "StatefulSet")
    assert spec["template"]["spec"]["containers"][0]["image"].endswith(f":{VERSION}")


def test_installed_it_serves_in_any_folder(wheel: Path, tmp_path: Path) -> None:
    """The new environment borrows what this one has installed, since there may be no network."""
    folder = tmp_path / "environment"
    venv.create(folder, symlinks=True)
    install = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--quiet")
    subprocess.run([*install, "--no-index", "--no-deps", wheel], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "borrowed.pth").write_text(str(Path(gunicorn.__file__).parents[1]))
    aibridge, port, elsewhere = folder / "bin" / "aibridge", free_port(), tmp_path / "elsewhere"
    elsewhere.mkdir()
    told = subprocess.run([aibridge, "--version"], capture_output=True, text=True, env=_CLEAN, check=True)
    assert told.stdout.split()[-1] == VERSION
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [aibridge, "serve", f"--bind=127.0.0.1:{port}"],
            cwd=elsewhere,
            env={**_CLEAN, "AIBRIDGE_DRAIN_DELAY": "0"},
            stderr=log,
        )
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}{PREFIX}/healthz"))
        for path in ("", PREFIX + "/ui/", PREFIX + "/ui/static/dashboard.css"):
            assert answers(f"http://127.0.0.1:{port}{path}")
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0, (tmp_path / "log").read_text()
    assert (elsewhere / "aibridge.db").exists()
