"""`mes logs`: the logs that `mes up` writes in its folder."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import click

from mes.cli.client import CommandError, MesClient, Target
from mes.cli.output import printable
from mes.cli.target import pass_target

_POLL_SECONDS = 0.2


@click.command(epilog="Example: mes logs -f -n 20 runtime")
@click.argument("name", type=click.Choice(["mes", "runtime"]), default="mes")
@click.option("-f", "--follow", is_flag=True, help="Print further lines until Ctrl-C.")
@click.option(
    "-n", "--tail", type=click.IntRange(min=0), metavar="N", help="Begin with the last N lines."
)
@pass_target
def logs(target: Target, name: str, follow: bool, tail: int | None) -> None:
    """Print the log of MES, or of its embedded runtime, that `mes up` has written.

    It is the one in the present folder, else that of the running service, if it runs on this
    machine. Each line of MES is a JSON object, documented in docs/operations.md.
    """
    path = _path_of(f"{name}.log", target)
    try:
        with path.open(encoding="utf-8", errors="replace") as log:
            _print(log if tail is None else deque(log, maxlen=tail))
            if follow:
                _print(_later_lines(path, log))
    except OSError as exc:
        raise CommandError(
            f"{path} cannot be read ({exc.strerror}); "
            "change to the folder in which `mes up` or `make run` was started"
        ) from exc


def _path_of(name: str, target: Target) -> Path:
    """Return the log in the present folder, else in that of the running service."""
    here = Path("logs", name)
    if here.exists():
        return here
    try:
        answer = MesClient(target).get("/v1/settings", required_field="working_directory")
    except CommandError:
        return here
    there = Path(answer["working_directory"], here)
    return there if there.exists() else here


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(printable(line), nl=False)


def _later_lines(path: Path, log: IO[str]) -> Iterator[str]:
    """Yield the lines that are written from now on, also after the log was replaced or emptied."""
    while True:
        yield from iter(log.readline, "")
        time.sleep(_POLL_SECONDS)
        if _was_replaced(path, log):
            yield from iter(log.readline, "")
            log = path.open(encoding="utf-8", errors="replace")
        elif os.fstat(log.fileno()).st_size < log.tell():
            log.seek(0)


def _was_replaced(path: Path, log: IO[str]) -> bool:
    try:
        return not os.path.samestat(path.stat(), os.fstat(log.fileno()))
    except FileNotFoundError:
        return False  # the next one has not been written yet
