"""The console: tables and spinners on a terminal, plain text anywhere else."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

# Wide enough for any row: what is piped must not be cut or wrapped.
_PLAIN_WIDTH = 1000

_STYLES = {
    "ready": "green",
    "loading": "yellow",
    "unavailable": "red",
    "not_pulled": "dim",
    "disabled": "dim",
    "ok": "green",
    "warn": "yellow",
    "fail": "red",
}


def console(*, stderr: bool = False) -> Console:
    """Standard output, or what stands beside it; NO_COLOR is respected."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PLAIN_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def table(*headings: str, numbers: tuple[str, ...] = ()) -> Table:
    """A table without lines, so that `awk` can read it too."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        made.add_column(heading, justify="right" if heading in numbers else "left", no_wrap=True)
    return made


def colored_word(said: str) -> Text:
    """One of the words for how things stand, in its colour."""
    return Text(said, style=_STYLES.get(said, ""))


def waiting(sentence: str) -> AbstractContextManager[Any]:
    """Something moves while the block lasts, if somebody is there to see it."""
    beside = console(stderr=True)
    return beside.status(Text(sentence)) if beside.is_terminal else nullcontext()


def print_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_text(text: str) -> None:
    """Somebody else's words; on a terminal without what could steer it."""
    click.echo(harmless(text) if sys.stdout.isatty() else text)


def harmless(text: str) -> str:
    """Return the text without what could steer a terminal."""
    return "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")
