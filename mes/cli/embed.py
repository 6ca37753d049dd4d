"""`mes embed`: a vector for each text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from mes.cli.client import MesClient, Target
from mes.cli.completion import complete_models
from mes.cli.output import print_json, spinner
from mes.cli.run import read_standard_input
from mes.cli.target import pass_target

# Texts of one request. The service takes 2,048, but no body larger than MAX_BODY_BYTES.
_BATCH = 256


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
    client, request = MesClient(target), {"model": model, "dimensions": dimensions}
    for batch in [inputs] if as_json else _batches(inputs):
        with spinner(f"waiting for {model}"):
            answer = client.post("/v1/embeddings", {**request, "input": batch})
        if as_json:
            print_json(answer)
        else:
            _print_vectors(answer)


def _batches(texts: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(texts), _BATCH):
        yield texts[start : start + _BATCH]


def _print_vectors(answer: dict[str, Any]) -> None:
    for item in answer["data"]:
        click.echo(json.dumps(item["embedding"]))
