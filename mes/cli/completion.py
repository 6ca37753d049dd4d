"""Shell completion: of commands, options and the names of models."""

from __future__ import annotations

import os
import re

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from mes.cli.client import CommandError, MesClient
from mes.cli.target import current_target

_SHELLS = ("bash", "zsh", "fish")
_VARIABLE = "_MES_COMPLETE"
_TIMEOUT_SECONDS = 2.0

_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' line="${COMP_LINE:0:COMP_POINT}" completion type value
    # bash divides words at colons and equals signs, and replaces the last part alone.
    local word="${line##*[[:space:]]}"
    word="${word#--*=}"
    local kept="${word%%"${word##*[:=]}"}"
    for completion in $(env COMP_LINE="$line" %(complete_var)s=bash_complete "$1" 2>/dev/null); do
        IFS=',' read -r type value <<< "$completion"
        if [[ $type == 'dir' ]]; then
            compopt -o dirnames
        elif [[ $type == 'file' ]]; then
            compopt -o default
        elif [[ $type == 'plain' ]]; then
            COMPREPLY+=("${value#"$kept"}")
        fi
    done
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class _BashComplete(BashComplete):
    """click's completion for bash, for words with colons too, as names of models have them."""

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)[1:]
        is_complete = re.search(r"\s$", line) or not words
        return (words, "") if is_complete else (words[:-1], words[-1])


add_completion_class(_BashComplete)


def complete_models(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Return the models of the service whose id begins with the text; none if it is not up."""
    try:
        client = MesClient(current_target(context))
        path, timeout = "/v1/models", _TIMEOUT_SECONDS
        models = client.get(path, required_field="models", timeout=timeout)["models"]
    except CommandError:
        return []
    return [
        CompletionItem(model["id"], help=model.get("status"))
        for model in models
        if model["id"].startswith(incomplete)
    ]


def complete_first_model(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Return models for the first of several words, unless an option has named one."""
    if context.params.get(parameter.name or "") or context.params.get("model"):
        return []
    return complete_models(context, parameter, incomplete)


@click.command(epilog="Example: echo 'eval \"$(mes completion bash)\"' >> ~/.bashrc")
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script for completion in SHELL.

    It completes commands, options, their values, and the names of models."""
    kind = get_completion_class(shell)
    assert kind is not None
    group, name = ctx.find_root().command, "mes"
    click.echo(kind(group, {}, name, _VARIABLE).source())
