"""`aibridge config`: the configuration that the server would use."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click

from .. import config
from ..config.effective import effective
from ..config.load import merge_sources

_DEFAULTS = {"cache_read": "input", "cache_write": "input", "cache_write_1h": "cache_write"}


@click.group("config")
def configuration() -> None:
    """The configuration."""


@configuration.command()
def check() -> None:
    """Reads the configuration as the server does; names wrong settings, and prices that are left open."""
    settings = config.load({})
    for name, price in sorted(merge_sources({}).get("prices", {}).items()):
        for line in _open_prices(name, price):
            click.echo(line)
    if any(provider.type == "copilot" for provider in settings.providers) and not settings.prices:
        click.echo("copilot: its tokens have no list price; without [prices] they are unpriced")
    click.echo("The configuration is right.")


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
