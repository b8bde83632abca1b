"""Each shell block of the README and of `docs/` runs here, or says in a comment before it why it does not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import providers
from tests.support.server import ROOT, Server
from tests.support.upstream import Upstream, http_response

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"(?:<!-- (?P<why>[^\n]*) -->\n)?```sh\n(?P<commands>.*?)```", re.DOTALL)
_ELSEWHERE = ("not run: ", "tests")  # .ci/run runs the block that is marked `tests`


class Block(NamedTuple):
    page: str
    commands: str
    why: str


BLOCKS = [
    Block(page.name, found["commands"], found["why"] or "")
    for page in PAGES
    for found in _BLOCK.finditer(page.read_text())
]
RUN = [block for block in BLOCKS if not block.why.startswith(_ELSEWHERE)]


@pytest.fixture(scope="module")
def server(shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The bridge that the pages talk of: its folder is where the commands run."""
    shared_upstream.reset()
    shared_upstream.handler = lambda received: [http_response(200, b'{"data":[]}')]
    folder = tmp_path_factory.mktemp("docs")
    settings = {
        "database_url": f"sqlite:///{folder}/aibridge.db",
        "providers": providers(shared_upstream.url),
    }
    server = Server(folder, settings, is_forked=True)
    programs = folder / "bin"
    programs.mkdir()
    (programs / "aibridge").write_text(f'#!/bin/sh\nexec {sys.executable} -m aibridge_flask "$@"\n')
    (programs / "aibridge").chmod(0o755)
    yield server.wait_ready()
    server.process.kill()
    server.process.wait()


@pytest.mark.parametrize("block", RUN, ids=lambda block: f"{block.page}: {block.commands.split(chr(10))[0]}")
def test_what_a_page_says_to_type_works(server: Server, block: Block) -> None:
    commands = block.commands.replace("http://localhost:8080", server.root)
    commands = commands.replace("https://ai.example.com", server.root)
    environ = {
        **os.environ,
        "PATH": f"{server.folder}/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "AIBRIDGE_CONFIG": str(server.config),
        "TOKEN": "aib_local",
    }
    shell = ("bash", "-euo", "pipefail", "-c", commands)
    told = subprocess.run(shell, cwd=server.folder, env=environ, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr


def test_pages_have_blocks_and_reasons() -> None:
    assert len(RUN) > 5
    assert {block.page for block in BLOCKS} >= {"README.md", "start.md", "operate.md"}
    assert all(
        len(block.why) > len("not run: ") or block.why == "tests" for block in BLOCKS if block not in RUN
    )


def test_links_between_pages_lead_somewhere() -> None:
    links = [
        (page, link)
        for page in [*PAGES, ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md"]
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    ]
    assert [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()] == []


def test_the_readme_is_short() -> None:
    assert len(Path(ROOT, "README.md").read_text().splitlines()) < 150
