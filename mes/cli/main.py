"""The `mes` command."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from mes import __version__
from mes.cli import client
from mes.cli import key as key_commands
from mes.cli.checks.command import check
from mes.cli.client import CommandError
from mes.cli.models import load, models, pull, unload
from mes.cli.run import run
from mes.cli.status import status
from mes.cli.validate import validate

# `mes serve`: the service under gunicorn, as in production.

_PROJECT = Path(__file__).parents[2]


@click.command()
def serve() -> None:
    """Serve under gunicorn until SIGTERM, with the runtime that OLLAMA_HOST names.

    `make run` does more: it brings a runtime and a model of its own.
    """
    config = _PROJECT / "gunicorn.conf.py"
    if not config.is_file():
        raise CommandError(f"{config} is missing; install MES from its folder: pip install -e .")
    # An empty value counts as not set; gunicorn would trip over an empty WEB_CONCURRENCY.
    environ = {name: value for name, value in os.environ.items() if value.strip()}
    gunicorn = [sys.executable, "-m", "gunicorn", "-c", str(config)]
    # It takes our place, so that signals reach it and not a parent that would have to pass them on.
    os.execve(sys.executable, [*gunicorn, "--pythonpath", str(_PROJECT), "wsgi:app"], environ)


# The `mes` command: its options and its commands.

_INTERRUPTED = 130


class _Quiet(click.Group):
    """A group that Ctrl-C ends without a word, with the status that shells expect."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(_INTERRUPTED)


@click.group(cls=_Quiet, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--url", metavar="URL", help="Where MES is. [MES_URL; else from HOST and PORT]")
@click.option("--key", help="The key to show; in MES_API_KEY nobody else can see it.")
@click.version_option(__version__, prog_name="mes")
@click.pass_context
def mes(ctx: click.Context, url: str | None, key: str | None) -> None:
    """The Model Execution Service: serve it, look at it, use it.

    What is not given as an option comes from the environment, or from .env.
    """
    ctx.obj = client.find_target(url, key)


for command in (serve, status, models, load, unload, pull, run, validate, check, key_commands.key):
    mes.add_command(command)
