"""Output of the commands: tables and spinners on a terminal, plain text elsewhere."""

from __future__ import annotations

import io
import json
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import click
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

# Wider than any row: output to a pipe must not be cut or wrapped.
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
    """Return a console for standard output or standard error; it respects NO_COLOR."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PLAIN_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def table(*headings: str, numbers: tuple[str, ...] = ()) -> Table:
    """Return an empty table without lines, which `awk` can read.

    The columns named in `numbers` are aligned to the right.
    """
    result = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        result.add_column(heading, justify="right" if heading in numbers else "left", no_wrap=True)
    return result


def colored_word(word: str) -> Text:
    """Return a status or level (`ready`, `fail`) in its color."""
    return Text(word, style=_STYLES.get(word, ""))


def spinner(text: str) -> AbstractContextManager[Status | None]:
    """Show a spinner with `text` on standard error during the block, if it is a terminal."""
    errors = console(stderr=True)
    return errors.status(Text(text)) if errors.is_terminal else nullcontext()


def replace_unencodable() -> None:
    """Print `?` in place of each character that the encoding of the output does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def print_json(document: Any) -> None:
    """Print a document as indented JSON, with escapes if the output lacks a character of it."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    click.echo(text if _is_encodable(text) else json.dumps(document, indent=2))


def _is_encodable(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def print_text(text: str, *, err: bool = False) -> None:
    """Print text from a model to standard output, or to standard error."""
    click.echo(printable(text, err=err), err=err)


def printable(text: str, *, err: bool = False) -> str:
    """Return text from a model, for a terminal without control characters, which could steer it."""
    stream = sys.stderr if err else sys.stdout
    return without_control_characters(text) if stream.isatty() else text


def without_control_characters(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")
