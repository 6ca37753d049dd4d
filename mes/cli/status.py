"""`mes status`: the models and their queues, as they stand or as they change."""

from __future__ import annotations

import time
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mes.cli.client import Client, CommandError, Target
from mes.cli.output import colored_word, console, print_json, table

_EVERY_SECONDS = 1.0
_MOST_WAITING = 10


@click.command()
@click.option("--once", is_flag=True, help="Show it once and end, as where nobody watches.")
@click.option("--json", "as_json", is_flag=True, help="The service's own answer, once.")
@click.pass_obj
def status(target: Target, once: bool, as_json: bool) -> None:
    """Watch the models and the queue; Ctrl-C ends it."""
    client, out = Client(target), console()
    document = _ask(client)
    if as_json:
        print_json(document)
    elif once or not out.is_terminal:
        out.print(_screen(document))
    else:
        with Live(_screen(document), console=out, auto_refresh=False) as live:
            _event_loop(client, live)


def _ask(client: Client) -> dict[str, Any]:
    return client.get("/v1/status", having="models")


def _event_loop(client: Client, live: Live) -> None:
    while True:
        time.sleep(_EVERY_SECONDS)
        try:
            live.update(_screen(_ask(client)), refresh=True)
        except CommandError as problem:
            # Whoever watches a restart wants to see the end of it.
            live.update(Text(f"mes: {problem.message}"), refresh=True)


def _screen(document: dict[str, Any]) -> RenderableType:
    parts: list[RenderableType] = [Text(_headline(document)), "", _models(document["models"])]
    if queue := document.get("queue"):
        parts += ["", _queue(queue[:_MOST_WAITING])]
        if len(queue) > _MOST_WAITING:
            parts.append(f"and {len(queue) - _MOST_WAITING} more")
    return Group(*parts)


def _headline(document: dict[str, Any]) -> str:
    runtime = document.get("runtime") if document.get("ollama_running") else None
    loaded = len(document.get("models_loaded", []))
    memory = document.get("memory_available_gb")
    return ", ".join(
        [
            f"MES {document.get('version')}",
            runtime or "the runtime does not answer",
            f"{loaded} of {document.get('max_loaded_models')} places taken",
            "memory unknown" if memory is None else f"{memory:.1f} GB of memory free",
        ]
    )


def _models(described: list[dict[str, Any]]) -> Table:
    numbers = ("RUNNING", "WAITING", "OLDEST", "LOADS", "EVICTED")
    made = table("MODEL", "STATUS", *numbers, numbers=numbers)
    for model in described:
        made.add_row(
            model.get("id"),
            colored_word(str(model.get("status"))),
            f"{model.get('in_flight')}/{model.get('max_concurrent')}",
            f"{model.get('queued')}/{model.get('max_queue')}",
            _seconds(model.get("oldest_wait_ms")),
            str(model.get("loads")),
            str(model.get("evictions")),
        )
    return made


def _queue(waiting: list[dict[str, Any]]) -> Table:
    numbers = ("POSITION", "WAITED", "STARTS IN")
    made = table("REQUEST", "MODEL", *numbers, numbers=numbers)
    for each in waiting:
        made.add_row(
            each.get("request_id") or "-",
            each.get("model_id"),
            str(each.get("position")),
            _seconds(each.get("waited_ms")),
            _seconds(each.get("expected_start_ms")),
        )
    return made


def _seconds(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds / 1000:.1f} s"
