"""`mes run`: run one inference; standard output has the model's output alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from mes import strict_json
from mes.cli.client import CommandError, MesClient, Target
from mes.cli.output import print_json, print_text, spinner
from mes.cli.target import pass_target


@click.command()
@click.argument("model")
@click.argument("prompt")
@click.option("--schema", metavar="FILE", help="JSON Schema that the output must match.")
@click.option("--system", metavar="TEXT", help="System prompt.")
@click.option("--temperature", type=float, metavar="0..2", help="Randomness of the output.")
@click.option("--max-tokens", type=int, metavar="N", help="Maximum length of the output.")
@click.option(
    "--timeout", type=float, metavar="SECONDS", help="Time limit of the generation alone."
)
@click.option("--json", "as_json", is_flag=True, help="Print the service's JSON answer.")
@pass_target
def run(
    target: Target,
    model: str,
    prompt: str,
    schema: str | None,
    system: str | None,
    temperature: float | None,
    max_tokens: int | None,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Run one inference and print its output.

    MODEL completes PROMPT, which is read from standard input if it is -.

    Output that does not match its schema is printed too, and the exit status is 1.
    """
    request = {
        "model_id": model,
        "prompt": _read_standard_input() if prompt == "-" else prompt,
        "json_schema": None if schema is None else _read_json_file(schema),
        "system_prompt": system,
        "temperature": temperature,
        "max_tokens": max_tokens,
        "timeout": timeout,
    }
    with spinner(f"waiting for {model}"):
        answer = MesClient(target).post("/v1/inference", request)
    if as_json:
        print_json(answer)
    else:
        print_text(str(answer.get("output", "")))
    _report_failure(answer)


def _read_standard_input() -> str:
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


def _report_failure(answer: dict[str, Any]) -> None:
    """Raise the error of an unsuccessful answer, and warn if the output was cut off."""
    if not answer.get("success"):
        request_id = answer.get("request_id")
        raise CommandError(f"{answer.get('error')} ({answer.get('code')}, request {request_id})")
    if answer.get("finish_reason") == "length":
        click.echo("mes: the output was cut off; raise --max-tokens", err=True)
