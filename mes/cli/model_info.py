"""`mes ps` and `mes show`: the models in memory, and all that is known of one model."""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table

from mes.cli.client import MesClient, Target
from mes.cli.completion import complete_models
from mes.cli.models import gigabytes, model_path
from mes.cli.output import colored_word, console, print_json, table
from mes.cli.target import pass_target


@click.command(epilog="Example: mes ps")
@click.option("--json", "as_json", is_flag=True, help="Print the models in memory as JSON.")
@pass_target
def ps(target: Target, as_json: bool) -> None:
    """List the models in memory and their requests."""
    document = MesClient(target).get("/v1/status", required_field="models")
    models = [each for each in document["models"] if each["status"] in ("ready", "loading")]
    if as_json:
        print_json({"models": models})
    else:
        console().print(_table_of_loaded(models))


@click.command(epilog="Example: mes show smollm2:135m")
@click.argument("model", shell_complete=complete_models)
@click.option("--json", "as_json", is_flag=True, help="Print the service's JSON answer.")
@pass_target
def show(target: Target, model: str, as_json: bool) -> None:
    """Show the properties and the state of MODEL."""
    document = MesClient(target).get(model_path(model), required_field="status")
    if as_json:
        print_json(document)
    else:
        console().print(_table_of_properties(document))


def _table_of_loaded(models: list[dict[str, Any]]) -> Table:
    numbers = ("SIZE", "CONTEXT", "RUNNING", "WAITING")
    result = table("MODEL", "STATUS", *numbers, "PINNED", numbers=numbers)
    for model in models:
        result.add_row(
            model["id"],
            colored_word(str(model["status"])),
            gigabytes(model.get("size_gb")),
            str(model.get("context_window") or "-"),
            f"{model.get('in_flight')}/{model.get('max_concurrent')}",
            f"{model.get('queued')}/{model.get('max_queue')}",
            "yes" if model.get("pinned") else "no",
        )
    return result


def _table_of_properties(model: dict[str, Any]) -> Table:
    result = table("", "")
    result.show_header = False
    for name, value in _properties(model).items():
        result.add_row(name, "-" if value in (None, "") else str(value))
    return result


def _properties(model: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": model.get("id"),
        "name": model.get("name"),
        "status": model.get("status"),
        "parameters": model.get("parameter_size"),
        "quantization": model.get("quantization"),
        "digest": model.get("digest"),
        "capabilities": ", ".join(model.get("capabilities") or ()),
        "size": gigabytes(model.get("size_gb")),
        "context window": model.get("context_window"),
        "trained context": model.get("context_length"),
        "running": f"{model.get('in_flight')} of {model.get('max_concurrent')}",
        "waiting": f"{model.get('queued')} of {model.get('max_queue')}",
        "pinned": "yes" if model.get("pinned") else "no",
        "loads": model.get("loads"),
        "evictions": model.get("evictions"),
    }
