"""`mes serve`: the service under gunicorn, as in production."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from mes.cli.client import Problem

_PROJECT = Path(__file__).parents[2]


@click.command()
def serve() -> None:
    """Serve under gunicorn until SIGTERM, with the runtime that OLLAMA_HOST names.

    `make run` does more: it brings a runtime and a model of its own.
    """
    config = _PROJECT / "gunicorn.conf.py"
    if not config.is_file():
        raise Problem(f"{config} is missing; install MES from its folder: pip install -e .")
    # An empty value counts as not set; gunicorn would trip over an empty WEB_CONCURRENCY.
    environ = {name: value for name, value in os.environ.items() if value.strip()}
    gunicorn = [sys.executable, "-m", "gunicorn", "-c", str(config)]
    # It takes our place, so that signals reach it and not a parent that would have to pass them on.
    os.execve(sys.executable, [*gunicorn, "--pythonpath", str(_PROJECT), "wsgi:app"], environ)
