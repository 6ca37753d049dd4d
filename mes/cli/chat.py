"""`mes chat`: a conversation with a model, in a terminal or from a pipe."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import click

from mes.cli.client import CommandError, MesClient, Target
from mes.cli.completion import complete_models
from mes.cli.generation import (
    GenerationCommand,
    generation_options,
    report_failure,
    stream_answer,
    think_value,
)
from mes.cli.models import model_path
from mes.cli.target import pass_target

with contextlib.suppress(ImportError):
    import readline  # noqa: F401, gives `input` a history and the keys to edit a line

_HELP = """/clear  forget the conversation
/bye    end it; so does Ctrl-D
\"\"\"     begin and end a message of several lines"""
_QUOTES = '"""'


@click.command(cls=GenerationCommand, epilog="Example: mes chat smollm2:135m --system 'Be brief.'")
@click.argument("model", shell_complete=complete_models)
@generation_options
@pass_target
def chat(target: Target, model: str, system: str | None, think: str | None, **fields: Any) -> None:
    """Hold a conversation with MODEL.

    Each line is a message; three double quotes begin and end one of several lines. /clear begins
    anew, /help lists the commands, /bye or Ctrl-D ends. Ctrl-C cancels an answer.
    """
    client = MesClient(target)
    client.get(model_path(model), required_field="id")
    fields |= {"model_id": model, "think": think_value(think)}
    conversation = _Conversation(client, fields, system)
    if sys.stdin.isatty():
        click.echo(f"mes: a conversation with {model}; /help lists the commands", err=True)
    for text in _messages():
        if text in ("/bye", "/exit"):
            return
        conversation.take(text)


class _Conversation:
    """The messages so far. Each message of the user is answered, or forgotten."""

    def __init__(self, client: MesClient, fields: dict[str, Any], system: str | None) -> None:
        self._client = client
        self._fields = fields
        self._beginning = [] if system is None else [{"role": "system", "content": system}]
        self._messages = list(self._beginning)

    def take(self, text: str) -> None:
        """Carry out a command, or print the model's answer to a message."""
        if text in ("/help", "/?"):
            click.echo(_HELP, err=True)
        elif text == "/clear":
            self._messages = list(self._beginning)
        elif text.strip():
            self._answer(text)

    def _answer(self, text: str) -> None:
        messages = [*self._messages, {"role": "user", "content": text}]
        try:
            answer = stream_answer(self._client, {**self._fields, "messages": messages})
            report_failure(answer)
        except KeyboardInterrupt:
            click.echo("mes: the answer was cancelled", err=True)
        except CommandError as exc:
            if not sys.stdin.isatty():
                raise
            exc.show()
        else:
            reply = {"role": "assistant", "content": str(answer.get("output", ""))}
            self._messages = [*messages, reply]


def _messages() -> Iterator[str]:
    """Yield the messages of standard input, one a line or between triple quotes."""
    while (line := _line(">>> ")) is not None:
        if not line.startswith(_QUOTES):
            yield line
            continue
        lines = [line.removeprefix(_QUOTES)]
        while not lines[-1].endswith(_QUOTES) and (line := _line("... ")) is not None:
            lines.append(line)
        yield "\n".join(lines).removesuffix(_QUOTES)


def _line(prompt: str) -> str | None:
    try:
        return input(prompt if sys.stdin.isatty() else "")
    except EOFError:
        return None
    except UnicodeDecodeError as exc:
        raise CommandError("standard input is not UTF-8; convert it first") from exc
