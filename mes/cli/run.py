"""`mes run`: one inference, its output and nothing else on standard output."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from mes import strict_json
from mes.cli.client import Client, CommandError, Target
from mes.cli.output import print_json, print_text, waiting


@click.command()
@click.argument("model")
@click.argument("prompt")
@click.option("--schema", metavar="FILE", help="A JSON Schema that the answer must fit.")
@click.option("--system", metavar="TEXT", help="The system prompt.")
@click.option("--temperature", type=float, metavar="0..2")
@click.option("--max-tokens", type=int, metavar="N")
@click.option("--timeout", type=float, metavar="SECONDS", help="For the generation alone.")
@click.option("--json", "as_json", is_flag=True, help="The whole answer, usage and timings too.")
@click.pass_obj
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
    """Ask MODEL to complete PROMPT; a PROMPT of - is read from standard input.

    An answer that breaks its schema is printed too, and the exit status is 1.
    """
    request = {
        "model_id": model,
        "prompt": _standard_input() if prompt == "-" else prompt,
        "json_schema": None if schema is None else _read(schema),
        "system_prompt": system,
        "temperature": temperature,
        "max_tokens": max_tokens,
        "timeout": timeout,
    }
    with waiting(f"{model} is at work"):
        answer = Client(target).post("/v1/inference", request)
    if as_json:
        print_json(answer)
    else:
        print_text(str(answer.get("output", "")))
    _judge(answer)


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as exc:
        raise CommandError("standard input is not UTF-8; convert it first") from exc


def _read(path: str) -> Any:
    try:
        return strict_json.parse_json(Path(path).read_bytes())
    except OSError as exc:
        raise CommandError(f"{path} cannot be read ({exc.strerror}); see --schema") from exc
    except strict_json.NotJson as exc:
        raise CommandError(f"{path} is not JSON: {exc}; mend it") from exc


def _judge(answer: dict[str, Any]) -> None:
    """Say what a reader of the output alone would not see."""
    if not answer.get("success"):
        request = answer.get("request_id")
        raise CommandError(f"{answer.get('error')} ({answer.get('code')}, request {request})")
    if answer.get("finish_reason") == "length":
        click.echo("mes: the answer was cut off; allow it more with --max-tokens", err=True)
