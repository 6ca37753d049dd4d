"""`mes models`, `mes load`, `mes unload`: what may be run, and what is in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from mes.cli.client import Client, CommandError, Target
from mes.cli.output import colored_word, console, print_json, table, waiting


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
            colored_word(str(model.get("status"))),
            _size(model.get("size_gb")),
            str(model.get("context_window") or "-"),
            "yes" if model.get("supports_json") else "no",
            "yes" if model.get("pinned") else "no",
        )
    return made


def _size(gigabytes: float | None) -> str:
    return "-" if gigabytes is None else f"{gigabytes:.1f} GB"


# `mes pull`: a model fetched onto the runtime's disk, with a bar that grows.

Documents = Iterator[dict[str, Any]]


@click.command()
@click.argument("model")
@click.pass_obj
def pull(target: Target, model: str) -> None:
    """Fetch MODEL, which the catalog must name, onto the runtime's disk.

    Ctrl-C ends it; the next pull goes on where the runtime left off.
    """
    beside = console(stderr=True)
    documents = Client(target).lines(path_of(model, "pull"))
    result = _drawn(documents, beside) if beside.is_terminal else _told(documents)
    click.echo(result["message"])


def _drawn(documents: Documents, beside: Console) -> dict[str, Any]:
    """A bar for each file; what has no size is a line."""
    columns = [BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]
    bars: dict[str, TaskID | None] = {}
    with Progress(TextColumn("{task.description}"), *columns, console=beside) as progress:
        for document in documents:
            if document.get("type") == "result":
                return document
            status, total = str(document.get("status")), document.get("total_bytes")
            if status not in bars:
                bars[status] = progress.add_task(status, total=total) if total else None
                if not total:
                    progress.console.print(status)
            if (bar := bars[status]) is not None:
                progress.update(bar, completed=document.get("completed_bytes") or 0)
    raise _broken_off()


def _told(documents: Documents) -> dict[str, Any]:
    """Each step once, in plain lines."""
    before = None
    for document in documents:
        if document.get("type") == "result":
            return document
        if (status := document.get("status")) != before:
            click.echo(status, err=True)
        before = status
    raise _broken_off()


def _broken_off() -> CommandError:
    return CommandError(
        "the pull broke off; run it again, and see the service's log if it does so again"
    )
