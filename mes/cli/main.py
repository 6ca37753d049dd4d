"""The `mes` command: its options, and its subcommands."""

from __future__ import annotations

from typing import Any

import click

from mes import __version__
from mes.cli import client
from mes.cli import key as key_commands
from mes.cli.checks.command import check
from mes.cli.models import load, models, pull, unload
from mes.cli.run import run
from mes.cli.serve import serve, up
from mes.cli.status import status
from mes.cli.validate import validate

# The exit status that shells expect of a program ended by Ctrl-C: 128 + SIGINT.
_INTERRUPTED = 130


class _InterruptibleGroup(click.Group):
    """A command group that ends with status 130 and without output on Ctrl-C."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(_INTERRUPTED)


@click.group(cls=_InterruptibleGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--url", metavar="URL", help="Address of MES. [MES_URL; else from HOST and PORT]")
@click.option("--key", help="API key. Other users of the machine can see it; MES_API_KEY is safer.")
@click.version_option(__version__, prog_name="mes")
@click.pass_context
def mes(ctx: click.Context, url: str | None, key: str | None) -> None:
    """Serve, inspect and use the Model Execution Service.

    Values not given as options are read from the environment, then from .env.
    """
    ctx.obj = client.find_target(url, key)


_COMMANDS = (
    *(serve, up, status, models, load, unload, pull, run, validate, check, key_commands.key),
)
for command in _COMMANDS:
    mes.add_command(command)
