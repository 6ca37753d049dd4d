"""`mes models`, `load`, `unload`, `pull` and `rm`: the models of the catalog."""

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

from mes.cli.client import CommandError, MesClient, Target
from mes.cli.completion import complete_models
from mes.cli.output import colored_word, console, print_json, spinner, table
from mes.cli.target import pass_target

Documents = Iterator[dict[str, Any]]


@click.command(epilog="Example: mes list")
@click.option("--json", "as_json", is_flag=True, help="Print the service's JSON answer.")
@pass_target
def models(target: Target, as_json: bool) -> None:
    """List the models of the catalog."""
    document = MesClient(target).get("/v1/models", required_field="models")
    if as_json:
        print_json(document)
    else:
        console().print(_catalog_table(document["models"]))


@click.command(epilog="Example: mes load llama3.1:8b")
@click.argument("model", shell_complete=complete_models)
@pass_target
def load(target: Target, model: str) -> None:
    """Load MODEL and wait until it is ready."""
    _post_action(target, model, "load", f"loading {model}")


@click.command(epilog="Example: mes unload llama3.1:8b")
@click.argument("model", shell_complete=complete_models)
@pass_target
def unload(target: Target, model: str) -> None:
    """Unload MODEL after its running requests have ended."""
    _post_action(target, model, "unload", f"unloading {model}")


@click.command(epilog="Example: mes pull llama3.1:8b")
@click.argument("model", shell_complete=complete_models)
@pass_target
def pull(target: Target, model: str) -> None:
    """Download MODEL to the runtime's disk. MODEL must be in the catalog.

    Ctrl-C cancels the download; the next pull continues it.
    """
    errors = console(stderr=True)
    documents = MesClient(target).post_stream(f"{model_path(model)}/pull")
    show = _show_progress_bars if errors.is_terminal else _print_steps
    click.echo(show(documents, errors)["message"])


@click.command(epilog="Example: mes rm llama3.1:8b")
@click.argument("model", shell_complete=complete_models)
@pass_target
def rm(target: Target, model: str) -> None:
    """Delete MODEL from the runtime's disk.

    It stays in the catalog, and `mes pull` downloads it again. A MODEL in use is not deleted.
    """
    with spinner(f"deleting {model}"):
        document = MesClient(target).delete(model_path(model))
    click.echo(document.get("message", "done"))


def model_path(model: str) -> str:
    """Return the path of a model in the HTTP interface."""
    # Model ids contain `/` and `:`, which the service expects unescaped.
    return f"/v1/models/{quote(model, safe='/:')}"


def _post_action(target: Target, model: str, action: str, text: str) -> None:
    with spinner(text):
        document = MesClient(target).post(f"{model_path(model)}/{action}")
    click.echo(document.get("message", "done"))


def _catalog_table(entries: list[dict[str, Any]]) -> Table:
    numbers = ("SIZE", "CONTEXT")
    result = table("MODEL", "NAME", "STATUS", *numbers, "JSON", "PINNED", numbers=numbers)
    for model in entries:
        result.add_row(
            model.get("id"),
            model.get("name"),
            colored_word(str(model.get("status"))),
            gigabytes(model.get("size_gb")),
            str(model.get("context_window") or "-"),
            "yes" if model.get("supports_json") else "no",
            "yes" if model.get("pinned") else "no",
        )
    return result


def gigabytes(number: float | None) -> str:
    """Return a size for a table."""
    return "-" if number is None else f"{number:.1f} GB"


def _show_progress_bars(documents: Documents, errors: Console) -> dict[str, Any]:
    """Show a bar for each file and a line for each step without a size; return the result."""
    columns = [BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]
    bars: dict[str, TaskID | None] = {}
    with Progress(TextColumn("{task.description}"), *columns, console=errors) as progress:
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
    raise _incomplete()


def _print_steps(documents: Documents, errors: Console) -> dict[str, Any]:
    """Print each step once as a plain line; return the result."""
    last_status = None
    for document in documents:
        if document.get("type") == "result":
            return document
        if (status := document.get("status")) != last_status:
            errors.print(status)
        last_status = status
    raise _incomplete()


def _incomplete() -> CommandError:
    return CommandError(
        "the pull broke off before its result; run it again, or check the service's log"
    )
