"""`aibridge config`: the configuration that the server would use."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click

from .. import config
from ..config import Settings
from ..config.effective import effective
from ..config.load import merge_sources
from ..errors import ConfigError

_DEFAULTS = {"cache_read": "input", "cache_write": "input", "cache_write_1h": "cache_write"}


@click.group("config")
def configuration() -> None:
    """The configuration."""


@configuration.command()
@click.option("--json", "as_json", is_flag=True, help="Prints JSON: setting, status (fail, warn) and detail.")
def check(as_json: bool) -> None:
    """Reads the configuration as the server does; names wrong settings, and prices that are left open."""
    try:
        lines = [*_left_open(config.load({}))]
    except ConfigError as error:
        if not as_json:
            raise
        click.echo(_json("fail", error.lines))
        raise SystemExit(1) from None
    click.echo(_json("warn", lines) if as_json else "\n".join([*lines, "The configuration is right."]))


def _json(status: str, lines: Iterable[str]) -> str:
    """`lines` are such as `auth.mode: what is expected`."""
    parts = [line.split(": ", 1) for line in lines]
    return json.dumps([{"setting": setting, "status": status, "detail": text} for setting, text in parts])


def _left_open(settings: Settings) -> Iterator[str]:
    for name, price in sorted(merge_sources({}).get("prices", {}).items()):
        yield from _open_prices(name, price)
    if any(provider.type == "copilot" for provider in settings.providers) and not settings.prices:
        yield "copilot: its tokens have no list price; without [prices] they are unpriced"


def _open_prices(name: str, price: Mapping[str, Any]) -> Iterator[str]:
    for kind, default in _DEFAULTS.items():
        if kind not in price:
            yield f"prices.{name}.{kind}: not set, it costs what {default} costs"


@configuration.command()
@click.option("--json", "as_json", is_flag=True, help="Prints JSON: setting, value and source of each.")
def show(as_json: bool) -> None:
    """Shows all settings in effect, and where each comes from. Secrets are hidden."""
    found = effective()
    if as_json:
        click.echo(json.dumps([each._asdict() for each in found]))
        return
    width = max(len(each.setting) for each in found)
    for setting, value, source in found:
        click.echo(f"{setting:{width}}  {json.dumps(value, ensure_ascii=False)}  ({source})")
