"""`mes embed`: a vector for each text."""

from __future__ import annotations

import json

import click

from mes.cli.client import MesClient, Target
from mes.cli.completion import complete_models
from mes.cli.output import print_json, spinner
from mes.cli.run import read_standard_input
from mes.cli.target import pass_target


@click.command(epilog="Example: mes embed all-minilm 'first text' 'second text'")
@click.argument("model", shell_complete=complete_models)
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
@click.option("--dimensions", type=int, metavar="N", help="Length of each vector.")
@click.option("--json", "as_json", is_flag=True, help="Print the service's JSON answer.")
@pass_target
def embed(
    target: Target, model: str, texts: tuple[str, ...], dimensions: int | None, as_json: bool
) -> None:
    """Print a vector for each TEXT, as a line of JSON.

    Without a TEXT, each line of standard input is one; empty lines are left out.
    """
    inputs = list(texts) or [line for line in read_standard_input().splitlines() if line.strip()]
    if not inputs:
        raise click.UsageError("give a TEXT, or lines on standard input")
    request = {"model": model, "input": inputs, "dimensions": dimensions}
    with spinner(f"waiting for {model}"):
        answer = MesClient(target).post("/v1/embeddings", request)
    if as_json:
        print_json(answer)
        return
    for item in answer["data"]:
        click.echo(json.dumps(item["embedding"]))
