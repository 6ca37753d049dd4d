"""`mes models`, `mes load`, `mes unload`: what may be run, and what is in memory."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click
from rich.table import Table

from mes.cli.client import Client
from mes.cli.console import console, print_json, table, waiting, word
from mes.cli.target import Target


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The service's own answer, for scripts.")
@click.pass_obj
def models(target: Target, as_json: bool) -> None:
    """List the configured models."""
    document = Client(target).get("/v1/models", having="models")
    if as_json:
        print_json(document)
    else:
        console().print(_table(document["models"]))


@click.command()
@click.argument("model")
@click.pass_obj
def load(target: Target, model: str) -> None:
    """Load MODEL and wait until it is ready."""
    _bring(target, model, "load", f"loading {model}")


@click.command()
@click.argument("model")
@click.pass_obj
def unload(target: Target, model: str) -> None:
    """Let MODEL finish what it does, then unload it."""
    _bring(target, model, "unload", f"unloading {model}")


def path_of(model: str, action: str) -> str:
    """Where a model is asked to do something; ids carry `/` and `:`."""
    return f"/v1/models/{quote(model, safe='/:')}/{action}"


def _bring(target: Target, model: str, action: str, sentence: str) -> None:
    with waiting(sentence):
        document = Client(target).post(path_of(model, action))
    click.echo(document.get("message", "done"))


def _table(described: list[dict[str, Any]]) -> Table:
    numbers = ("SIZE", "CONTEXT")
    made = table("MODEL", "NAME", "STATUS", *numbers, "JSON", "PINNED", numbers=numbers)
    for model in described:
        made.add_row(
            model.get("id"),
            model.get("name"),
            word(str(model.get("status"))),
            _size(model.get("size_gb")),
            str(model.get("context_window") or "-"),
            "yes" if model.get("supports_json") else "no",
            "yes" if model.get("pinned") else "no",
        )
    return made


def _size(gigabytes: float | None) -> str:
    return "-" if gigabytes is None else f"{gigabytes:.1f} GB"
