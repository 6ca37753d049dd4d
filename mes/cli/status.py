"""`mes status`: show the models and their queues, once or continuously."""

from __future__ import annotations

import time
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mes.cli.client import CommandError, MesClient, Target
from mes.cli.output import colored_word, console, print_json, table
from mes.cli.target import pass_target

_REFRESH_SECONDS = 1.0
_MAX_QUEUE_ROWS = 10


@click.command(epilog="Example: mes status --once")
@click.option("--once", is_flag=True, help="Show the status once. Implied if output is piped.")
@click.option("--json", "as_json", is_flag=True, help="Print the service's JSON answer once.")
@pass_target
def status(target: Target, once: bool, as_json: bool) -> None:
    """Show the models and the queue every second until Ctrl-C."""
    client, out = MesClient(target), console()
    document = _get_status(client)
    if as_json:
        print_json(document)
    elif once or not out.is_terminal:
        out.print(_render(document))
    else:
        with Live(_render(document), console=out, auto_refresh=False) as live:
            _refresh_forever(client, live)


def _get_status(client: MesClient) -> dict[str, Any]:
    return client.get("/v1/status", required_field="models")


def _refresh_forever(client: MesClient, live: Live) -> None:
    while True:
        time.sleep(_REFRESH_SECONDS)
        try:
            live.update(_render(_get_status(client)), refresh=True)
        except CommandError as error:
            # Continue: the service may only be restarting.
            live.update(Text(f"mes: {error.message}"), refresh=True)


def _render(document: dict[str, Any]) -> RenderableType:
    parts: list[RenderableType] = [Text(_headline(document)), "", _status_table(document["models"])]
    if queue := document.get("queue"):
        parts += ["", _queue_table(queue[:_MAX_QUEUE_ROWS])]
        if len(queue) > _MAX_QUEUE_ROWS:
            parts.append(f"and {len(queue) - _MAX_QUEUE_ROWS} more")
    return Group(*parts)


def _headline(document: dict[str, Any]) -> str:
    runtime = document.get("runtime") if document.get("ollama_running") else None
    loaded = len(document.get("models_loaded", []))
    memory = document.get("memory_available_gb")
    return ", ".join(
        [
            f"MES {document.get('version')}",
            runtime or "the runtime does not answer",
            f"{loaded} of {_places(document)} models loaded",
            "memory unknown" if memory is None else f"{memory:.1f} GB of memory free",
        ]
    )


def _places(document: dict[str, Any]) -> str:
    """Return how many models may be in memory, and how many should, if the runtime holds fewer."""
    configured = document.get("max_loaded_models")
    effective = document.get("effective_max_loaded_models", configured)
    return str(effective) if effective == configured else f"{effective} (not {configured})"


def _status_table(entries: list[dict[str, Any]]) -> Table:
    numbers = ("RUNNING", "WAITING", "OLDEST", "LOADS", "EVICTED")
    result = table("MODEL", "STATUS", *numbers, numbers=numbers)
    for model in entries:
        result.add_row(
            model.get("id"),
            colored_word(str(model.get("status"))),
            f"{model.get('in_flight')}/{_limit(model)}",
            f"{model.get('queued')}/{model.get('max_queue')}",
            _seconds(model.get("oldest_wait_ms")),
            str(model.get("loads")),
            str(model.get("evictions")),
        )
    return result


def _limit(model: dict[str, Any]) -> Any:
    """Return how many requests may run; a service of an earlier release reports one number."""
    return model.get("effective_max_concurrent", model.get("max_concurrent"))


def _queue_table(tickets: list[dict[str, Any]]) -> Table:
    numbers = ("POSITION", "WAITED", "STARTS IN")
    result = table("REQUEST", "MODEL", *numbers, numbers=numbers)
    for ticket in tickets:
        result.add_row(
            ticket.get("request_id") or "-",
            ticket.get("model_id"),
            str(ticket.get("position")),
            _seconds(ticket.get("waited_ms")),
            _seconds(ticket.get("expected_start_ms")),
        )
    return result


def _seconds(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds / 1000:.1f} s"
