"""The command `aibridge`. It reads the same configuration as the server."""

from __future__ import annotations

import click

from ..errors import ConfigError
from ..version import VERSION
from .clients import client_config
from .configuration import configuration
from .databases import db
from .demo.command import demo
from .doctor import doctor
from .limits import limit
from .people import erase, export
from .purge import purge
from .reconcile import reconcile
from .reprice import reprice
from .serve import serve
from .tokens import token
from .usage import usage


@click.group()
@click.version_option(VERSION, prog_name="aibridge")
def aibridge() -> None:
    """AI Bridge: a gateway between AI coding tools and their providers."""


aibridge.add_command(client_config)
aibridge.add_command(configuration)
aibridge.add_command(db)
aibridge.add_command(demo)
aibridge.add_command(doctor)
aibridge.add_command(erase)
aibridge.add_command(export)
aibridge.add_command(limit)
aibridge.add_command(purge)
aibridge.add_command(reconcile)
aibridge.add_command(reprice)
aibridge.add_command(serve)
aibridge.add_command(token)
aibridge.add_command(usage)


def main() -> None:
    """Runs the command. A wrong setting ends it with one line."""
    try:
        aibridge(prog_name="aibridge")
    except ConfigError as error:
        raise SystemExit(f"aibridge: {error.message}") from None
