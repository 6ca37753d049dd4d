"""`mes pull`: a model fetched onto the runtime's disk, with a bar that grows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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

from mes.cli.client import Client, Problem
from mes.cli.console import console
from mes.cli.models import path_of
from mes.cli.target import Target

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


def _broken_off() -> Problem:
    return Problem(
        "the pull broke off; run it again, and see the service's log if it does so again"
    )
