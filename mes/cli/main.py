"""The `mes` command: its options, and its subcommands."""

from __future__ import annotations

from typing import Any

import click

from mes import __version__
from mes.cli import key as key_commands
from mes.cli import output
from mes.cli.chat import chat
from mes.cli.checks.command import check
from mes.cli.completion import completion
from mes.cli.embed import embed
from mes.cli.logs import logs
from mes.cli.model_info import ps, show
from mes.cli.models import load, models, pull, rm, unload
from mes.cli.run import run
from mes.cli.serve import serve, up
from mes.cli.status import status
from mes.cli.target import target_options
from mes.cli.validate import validate

# The exit status that shells expect of a program ended by Ctrl-C: 128 + SIGINT.
_INTERRUPTED = 130


class _MesGroup(click.Group):
    """The command `mes`: no character ends it, and Ctrl-C does so with status 130 and quietly."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        output.replace_unencodable()
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(_INTERRUPTED)


@click.group(
    cls=_MesGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: mes up, and in another terminal: mes run smollm2:135m 'Hello'",
)
@target_options
@click.version_option(__version__, prog_name="mes")
def mes() -> None:
    """Serve, inspect and use the Model Execution Service.

    Values not given as options are read from the environment, then from .env.
    """


_COMMANDS = (
    *(serve, up, logs, run, chat, embed),
    *(models, show, ps, status, load, unload, pull, rm),
    *(validate, check, key_commands.key, completion),
)
for command in _COMMANDS:
    mes.add_command(command)
mes.add_command(models, "list")
