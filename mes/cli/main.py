"""The `mes` command: its options and its commands."""

from __future__ import annotations

from typing import Any

import click

from mes import __version__
from mes.cli import key as key_commands
from mes.cli import target
from mes.cli.check import check
from mes.cli.models import load, models, unload
from mes.cli.pull import pull
from mes.cli.run import run
from mes.cli.serve import serve
from mes.cli.status import status
from mes.cli.validate import validate

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
    ctx.obj = target.find(url, key)


for command in (serve, status, models, load, unload, pull, run, validate, check, key_commands.key):
    mes.add_command(command)
