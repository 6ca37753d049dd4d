"""Generations: the options of `mes run` and `mes chat`, and answers printed as they arrive."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import click
from rich.status import Status
from rich.text import Text

from mes.cli.client import CommandError, MesClient
from mes.cli.output import printable, spinner

Command = Callable[..., Any]

_THINK_VALUES = ("true", "false", "low", "medium", "high", "max")

_OPTIONS = (
    click.option("--system", metavar="TEXT", help="System prompt."),
    click.option("--temperature", type=float, metavar="0..2", help="Randomness of the output."),
    click.option("--seed", type=int, metavar="N", help="Seed of the sampling; -1 is a random one."),
    click.option("--max-tokens", type=int, metavar="N", help="Maximum length of the output."),
    click.option(
        "--think",
        type=click.Choice(_THINK_VALUES),
        help="Let a reasoning model think, with this effort; alone, it means true. "
        "The reasoning is printed to standard error.",
    ),
    click.option(
        "--timeout", type=float, metavar="SECONDS", help="Time limit of the generation alone."
    ),
)


class GenerationCommand(click.Command):
    """A command whose option --think may have no value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_with_values_of_think(args)))


def _with_values_of_think(arguments: list[str]) -> Iterator[str]:
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    for position, word in enumerate(options):
        is_alone = word == "--think" and options[position + 1 :][:1] not in (
            [value] for value in _THINK_VALUES
        )
        yield "--think=true" if is_alone else word
    yield from arguments[len(options) :]


def generation_options(command: Command) -> Command:
    """Add the options of a generation to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def think_value(text: str | None) -> bool | str | None:
    """Return the request field `think` for the value of --think."""
    return {"true": True, "false": False}.get(text or "", text)


def stream_answer(client: MesClient, request: dict[str, Any]) -> dict[str, Any]:
    """Send a request to `POST /v1/inference`, print the answer as it arrives, return the result.

    The reasoning goes to standard error, if the request asks for it.
    """
    lines = client.post_stream("/v1/inference", {**request, "stream": True})
    writer = _AnswerWriter(with_reasoning=bool(request.get("think")))
    model = request["model_id"]
    with spinner(f"waiting for {model}") as status, closing(lines), closing(writer):
        for line in lines:
            if line.get("type") == "result":
                writer.end()
                return line
            if writer.prints(line):
                _stop(status)  # first: it erases the line that it is in
                writer.write(line)
            else:
                _show_progress(status, line, model)
    raise CommandError("the answer broke off before its result; check the log of the service")


def _stop(status: Status | None) -> None:
    if status is not None:
        status.stop()


def _show_progress(status: Status | None, line: dict[str, Any], model: str) -> None:
    if status is None:
        return
    texts = {
        "queued": f"waiting for {model}, position {line.get('position')} in its queue",
        "loading": f"loading {model}",
        "reasoning": f"{model} thinks",
    }
    status.update(Text(texts.get(str(line.get("type")), f"waiting for {model}")))


class _AnswerWriter:
    """Prints the pieces of an answer, and of the reasoning before it."""

    def __init__(self, *, with_reasoning: bool) -> None:
        self._types = ("token", "reasoning") if with_reasoning else ("token",)
        self._last: str | None = None

    def prints(self, line: dict[str, Any]) -> bool:
        """Return whether the line has text that is to be printed."""
        return line.get("type") in self._types

    def write(self, line: dict[str, Any]) -> None:
        """Print the text of a line."""
        kind = str(line["type"])
        if self._last not in (kind, None):
            self.end()
        self._last = kind
        is_reasoning = kind == "reasoning"
        text = printable(str(line.get("text")), err=is_reasoning)
        styled = is_reasoning and not os.environ.get("NO_COLOR")
        click.echo(click.style(text, dim=True) if styled else text, nl=False, err=is_reasoning)

    def end(self) -> None:
        """End the last line, which is an empty one if nothing was printed."""
        click.echo(err=self._last == "reasoning")
        self._last = None

    def close(self) -> None:
        """End a line that an error has interrupted."""
        if self._last is not None:
            self.end()


def report_failure(answer: dict[str, Any]) -> None:
    """Raise the error of an unsuccessful answer, and warn if the output was cut off."""
    if not answer.get("success"):
        request_id = answer.get("request_id")
        raise CommandError(f"{answer.get('error')} ({answer.get('code')}, request {request_id})")
    if answer.get("finish_reason") == "length":
        click.echo("mes: the output was cut off; raise --max-tokens", err=True)
