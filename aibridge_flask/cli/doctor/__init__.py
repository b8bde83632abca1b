"""`aibridge doctor`: what is wrong, why it matters, and what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click

from ... import config
from ...errors import ConfigError
from .finding import FAIL, OK, WARN, Finding
from .host import check_database, check_log_folder, check_python
from .rules import check_rules
from .services import check_providers, check_redis, check_tools, check_url

_MARKS = {OK: "ok   ", WARN: "WARN ", FAIL: "FAIL "}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Prints JSON: check, status, detail and advice.")
@click.option("--url", default="", help="Where clients reach the bridge: looks through the proxy in front.")
def doctor(as_json: bool, url: str) -> None:
    """Looks at everything that the bridge needs. Exits with 1 if anything has failed."""
    found: list[Finding] = []
    for each in _findings(url):
        found.append(each)
        if not as_json:
            click.echo(_text(each))
    if as_json:
        click.echo(json.dumps([each._asdict() for each in found]))
    if any(each.status == FAIL for each in found):
        raise SystemExit(1)


def _findings(url: str) -> Iterator[Finding]:
    yield from check_python()
    try:
        settings = config.load({})
    except ConfigError as error:
        advice = "Mend it; `aibridge config check` says whether it is right."
        yield Finding("configuration", FAIL, f"the server does not start: {error.message}", advice)
        return
    yield Finding("configuration", OK, f"{len(settings.providers)} providers, mode {settings.auth.mode}")
    yield from check_database(settings)
    yield from check_log_folder(settings)
    yield from check_redis(settings)
    yield from check_providers(settings)
    yield from check_tools(settings)
    yield from check_rules(settings)
    if url:
        yield from check_url(settings, url)


def _text(found: Finding) -> str:
    advice = f"\n       {found.advice}" if found.advice and found.status != OK else ""
    return f"{_MARKS[found.status]} {found.check}: {found.detail}{advice}"
