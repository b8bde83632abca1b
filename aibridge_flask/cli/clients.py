"""`aibridge client-config`: how AI clients are pointed at the bridge."""

from __future__ import annotations

import json
import os

import click
import requests

from .. import config
from ..client_config import check as checks
from ..client_config import files
from ..client_config.guides import (
    CLIENTS,
    SHOWN_TOKEN,
    Guide,
    Urls,
    default_token,
    guide,
    token_note,
    urls_of,
)
from ..config import Settings


@click.command("client-config")
@click.argument("client", default="")
@click.option("--base-url", default="", help="What stands before the prefix; default: the bind address.")
@click.option("--token", default="", help="A gateway token to put in.")
@click.option("--write", is_flag=True, help=f"Puts it into the client's own file: {', '.join(files.FILES)}.")
@click.option("--check", is_flag=True, help="Sends one small request by what the file says.")
@click.option("--model", default="", help="The model to check with.")
@click.option("--json", "as_json", is_flag=True, help="Prints JSON, a line for each of --write and --check.")
def client_config(
    client: str, base_url: str, token: str, write: bool, check: bool, model: str, as_json: bool
) -> None:
    """Says what to set where, so that CLIENT uses the bridge; without a name, lists the clients."""
    settings = config.load({})
    if not client:
        click.echo(json.dumps(dict(CLIENTS)) if as_json else _list())
        return
    if client not in CLIENTS:
        raise click.UsageError(f"unknown client {client!r}: one of {', '.join(CLIENTS)} is expected")
    if (write or check) and client not in files.FILES:
        option = "--write" if write else "--check"
        raise click.ClickException(
            f"{option} is for {', '.join(files.FILES)}; `aibridge client-config {client}` says it"
        )
    urls = urls_of(settings, _root(base_url))
    try:
        if write:
            click.echo(_write(client, urls, token or default_token(settings), as_json))
        if check:
            _check(client, model, as_json)
    except (files.CannotWrite, checks.NoSettings) as error:
        raise click.ClickException(str(error)) from None
    if not (write or check):
        _show(guide(client, urls, token or default_token(settings)), settings, as_json)


def _root(base_url: str) -> str:
    bind = os.environ.get("AIBRIDGE_BIND", "127.0.0.1:8080")
    root = (base_url or f"http://{bind}").rstrip("/")
    if not root.startswith(("http://", "https://")):
        raise click.UsageError("--base-url: an http or https URL is expected")
    return root


def _list() -> str:
    width = max(map(len, CLIENTS))
    lines = [f"{client:{width}}  {title}" for client, title in CLIENTS.items()]
    return "\n".join([*lines, "", "`aibridge client-config CLIENT` says what to set where."])


def _show(found: Guide, settings: Settings, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found._asdict()))
        return
    click.echo(found.told())
    if SHOWN_TOKEN in found.text:
        click.echo(f"\n{token_note(settings)}")


def _write(client: str, urls: Urls, token: str, as_json: bool) -> str:
    if token == SHOWN_TOKEN:
        raise click.UsageError("--token is needed: `aibridge token create --user NAME` makes one")
    written = files.write(client, urls, token)
    if as_json:
        return json.dumps({**written._asdict(), "path": str(written.path)})
    if not written.is_changed:
        return f"{written.path} is as it should be: nothing was changed."
    kept = f" What was there before is in {written.backup}." if written.backup else ""
    return f"{written.path} was written.{kept}"


def _check(client: str, model: str, as_json: bool) -> None:
    """Ends with 1 if anything is not as it should be."""
    try:
        found = checks.check(client, model)
    except requests.RequestException as error:
        raise click.ClickException(f"the bridge does not answer: {type(error).__name__}") from None
    if as_json:
        click.echo(json.dumps([each._asdict() for each in found]))
    else:
        for each in found:
            click.echo(f"{'ok  ' if each.ok else 'FAIL'}  {each.check}: {each.detail}")
    if not all(each.ok for each in found):
        raise SystemExit(1)
