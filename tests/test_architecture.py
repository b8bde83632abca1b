"""The shape of the code: imports point down, files and functions stay small."""

from __future__ import annotations

import ast
import re
import statistics
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "aibridge_flask"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "versions" not in path.parts)
# From the ground up; a module imports from its own layer or below.
LAYERS = (
    {
        "model",
        "protocols",
        "errors",
        "headers",
        "large_bytes",
        "sse",
        "clients",
        "caches",
        "content_coding",
        "waiting",
        "hooks",
        "version",
    },
    {"formats", "config"},
    {"pricing", "client_config"},
    {"upstream", "records", "limits", "tools", "observe"},
    {"providers", "reading"},
    {"relay", "outbound", "ownership", "in_flight"},
    {"turns", "agent", "offers", "bridge", "passthrough", "model_lists", "identity"},
    {"routes", "web", "incoming", "request_body"},
    {"extension", "cli", "serving"},
    {"__init__", "__main__"},
)
FLASK = {"routes", "incoming", "web", "identity", "extension", "cli"}


def unit_of(path: Path) -> str:
    """The top module or folder of the package to which a file belongs."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def list_imports(path: Path) -> list[tuple[str, int]]:
    """The absolute names that a file imports, with their lines."""
    package = ("aibridge_flask", *path.relative_to(PACKAGE).parts[:-1])
    imports = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imports += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            imports += [(f"{stem}.{alias.name}", node.lineno) for alias in node.names]
    return imports


def layer_of(name: str) -> int:
    return next(height for height, names in enumerate(LAYERS) if name in names)


def function_lengths(path: Path) -> list[tuple[str, int]]:
    """Name and length in lines of each function."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    return [(f"{path.name}:{node.name}", (node.end_lineno or 0) - node.lineno + 1) for node in nodes]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    for name, line in list_imports(path):
        parts = name.split(".")
        if parts[0] == "aibridge_flask" and len(parts) > 1 and parts[1] != unit_of(path):
            assert layer_of(parts[1]) <= layer_of(unit_of(path)), f"{path}:{line} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_frameworks_stay_where_they_belong(path: Path) -> None:
    roots = {name.split(".")[0] for name, _ in list_imports(path)}
    assert "gunicorn" not in roots or unit_of(path) == "serving"
    assert "gevent" not in roots or unit_of(path) in {"serving", "waiting"}
    assert not roots & {"flask", "werkzeug"} or unit_of(path) in FLASK
    if unit_of(path) == "formats":
        assert not roots & {"socket", "time", "datetime", "logging", "requests", "os", "threading"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300


def test_functions_are_short() -> None:
    functions = [function for path in FILES for function in function_lengths(path)]
    lengths = sorted(length for _, length in functions)
    assert [function for function in functions if function[1] > 60] == []
    assert statistics.median(lengths) <= 8
    assert lengths[int(len(lengths) * 0.9)] <= 30


def test_layers_name_exactly_the_existing_units() -> None:
    assert {unit_of(path) for path in FILES} == set().union(*LAYERS)


def test_the_architecture_page_names_existing_files_and_all_folders() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    names = set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py|(?:[a-z_]+/)+)`", page))
    roots = (PACKAGE, PACKAGE.parent)
    assert {name for name in names if not any((root / name).exists() for root in roots)} == set()
    assert {f"{unit_of(path)}/" for path in FILES if path.parent != PACKAGE} <= names


def rows_with_tests(page: str) -> list[str]:
    """The rows of the page's tables whose last column is named `test`."""
    tables = re.findall(r"^\|.*\| test \|\n\|[-|]+\|\n((?:\|.*\n)+)", page, re.MULTILINE)
    return [row for table in tables for row in table.splitlines()]


@pytest.mark.parametrize("page", ["compatibility.md", "security.md"])
def test_a_page_names_existing_tests(page: str) -> None:
    rows = rows_with_tests((PACKAGE.parent / "docs" / page).read_text())
    named = [re.findall(r"`([\w/]+\.py)::(\w+)`", row) for row in rows]
    assert rows
    assert all(named), "each row names a test"
    tests = PACKAGE.parent / "tests"
    missing = [
        f"{path}::{name}"
        for path, name in (test for row in named for test in row)
        if not (tests / path).exists() or f"\ndef {name}(" not in (tests / path).read_text()
    ]
    assert missing == []
