"""`mes run`: run one inference; standard output has the model's output alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from mes import strict_json
from mes.cli.client import CommandError, MesClient, Target
from mes.cli.completion import complete_first_model, complete_models
from mes.cli.generation import (
    GenerationCommand,
    generation_options,
    report_failure,
    stream_answer,
    think_value,
)
from mes.cli.output import print_json, print_text, spinner
from mes.cli.target import pass_target

_EXAMPLE = """\b
Examples:
  mes run smollm2:135m "What is the capital of France?"
  git diff | mes run llama3.1:8b --temperature 0 Summarize this change: -
"""


@click.command(cls=GenerationCommand, epilog=_EXAMPLE)
@click.argument("words", metavar="MODEL [PROMPT]...", nargs=-1, shell_complete=complete_first_model)
@click.option("--model", shell_complete=complete_models, help="MODEL, instead of the first word.")
@click.option(
    "--schema",
    metavar="FILE",
    type=click.Path(),
    help="JSON Schema that the output must match.",
)
@generation_options
@click.option(
    "--max-attempts",
    type=int,
    metavar="1..4",
    help="Most generations until the output matches the schema.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the service's JSON answer.")
@pass_target
def run(
    target: Target,
    words: tuple[str, ...],
    model: str | None,
    schema: str | None,
    think: str | None,
    system: str | None,
    as_json: bool,
    **fields: Any,
) -> None:
    """Run one inference and print its output as it arrives.

    MODEL completes PROMPT. Without a PROMPT it is read from standard input, and a word - in the
    PROMPT is replaced by standard input.

    With --schema, the output is printed when it has been validated. Output that does not match is
    printed too, and the exit status is 1.
    """
    model, prompt = _model_and_prompt(model, words)
    request = {
        "model_id": model,
        "prompt": prompt,
        "json_schema": None if schema is None else _read_json_file(schema),
        "system_prompt": system,
        "think": think_value(think),
        **fields,
    }
    client = MesClient(target)
    if as_json or schema is not None:
        report_failure(_wait_for_answer(client, request, as_json=as_json))
    else:
        report_failure(stream_answer(client, request))


def _model_and_prompt(model: str | None, words: tuple[str, ...]) -> tuple[str, str]:
    if model is None:
        if not words:
            raise click.UsageError("name a MODEL; `mes list` shows them")
        model, *words_of_prompt = words
    else:
        words_of_prompt = list(words)
    if not words_of_prompt and sys.stdin.isatty():
        raise click.UsageError(f"give a PROMPT, or start a conversation: mes chat {model}")
    return model, _prompt(words_of_prompt or ["-"])


def _prompt(words: list[str]) -> str:
    text = read_standard_input() if "-" in words else ""
    return " ".join(text if word == "-" else word for word in words)


def _wait_for_answer(
    client: MesClient, request: dict[str, Any], *, as_json: bool
) -> dict[str, Any]:
    with spinner(f"waiting for {request['model_id']}"):
        answer = client.post("/v1/inference", request)
    if as_json:
        print_json(answer)
        return answer
    if request["think"] and "reasoning" in answer:
        print_text(str(answer["reasoning"]), err=True)
    print_text(str(answer.get("output", "")))
    return answer


def read_standard_input() -> str:
    """Return the text of standard input."""
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as exc:
        raise CommandError("standard input is not UTF-8; convert it first") from exc


def _read_json_file(path: str) -> Any:
    try:
        return strict_json.parse_json(Path(path).read_bytes())
    except OSError as exc:
        raise CommandError(f"{path} cannot be read ({exc.strerror}); check --schema") from exc
    except strict_json.NotJson as exc:
        raise CommandError(f"{path} is not valid JSON: {exc}; correct the file") from exc
