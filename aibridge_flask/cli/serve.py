"""`aibridge serve`: the standalone server, in any folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from .. import config, serving

_APPLICATION = "aibridge_flask:create_app()"


@click.command()
@click.option(
    "--bind", default="", help="HOST:PORT, unix:PATH; default: $AIBRIDGE_BIND, else 127.0.0.1:8080."
)
@click.option("--workers", type=click.IntRange(1), help="Processes; default: $AIBRIDGE_WORKERS, else 1.")
def serve(bind: str, workers: int | None) -> None:
    """Serves until it is stopped: gunicorn with gevent workers. SIGHUP reloads the configuration."""
    config.load({})  # a wrong setting is named before anything starts
    if bind:
        os.environ["AIBRIDGE_BIND"] = bind
    if workers:
        os.environ["AIBRIDGE_WORKERS"] = str(workers)
    file = Path(serving.__file__).with_name("gunicorn_file.py")
    # a new process: this one has imported what gevent must patch before
    os.execv(sys.executable, [*_gunicorn(), "-c", str(file), _APPLICATION])  # noqa: S606


def _gunicorn() -> list[str]:
    """Returns its command. At USR2 it starts itself by the path of its script."""
    script = Path(sys.executable).with_name("gunicorn")
    return [sys.executable, *([str(script)] if script.exists() else ["-m", "gunicorn"])]
