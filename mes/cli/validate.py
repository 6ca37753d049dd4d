"""`mes validate`: each line of a JSON Lines file, judged by a schema with two validators."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import click
from rich.table import Table

from mes import strict_json
from mes.cli.client import CommandError, MesClient, Target
from mes.cli.output import console, print_json, spinner, table, without_control_characters
from mes.cli.target import pass_target

_MOST_INSTANCES = 1_000
# With the schema beside them, at most SCHEMA_MAX_BYTES, below the default of MAX_BODY_BYTES.
_MOST_BYTES = 800_000
# In a request an instance is inside a list inside an object.
_DEEPEST = strict_json.MAX_DEPTH - 2

# The results of a line, in the order in which they are counted.
VALID, INVALID, DISAGREEMENT, UNDECIDED, NOT_JSON = _RESULTS = (
    "valid",
    "invalid",
    "disagreement",
    "undecided",
    "not_json",
)


@dataclass(frozen=True)
class Instance:
    """The value of one line."""

    line: int
    value: Any
    bytes: int


@dataclass
class Report:
    """The results so far: how many lines have each, and each line that is not valid."""

    counts: Counter[str] = field(default_factory=Counter)
    findings: list[dict[str, Any]] = field(default_factory=list)

    def add(self, line: int, result: str, **details: Any) -> None:
        self.counts[result] += 1
        if result != VALID:
            self.findings.append({"line": line, "result": result, **details})

    @property
    def totals(self) -> dict[str, int]:
        """Return the number of lines, and of each result."""
        return {"lines": self.counts.total(), **{each: self.counts[each] for each in _RESULTS}}


@click.command(epilog="Example: mes validate person.json answers.jsonl")
@click.argument("schema")
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="Totals, and each line that is not valid.")
@pass_target
@click.pass_context
def validate(ctx: click.Context, target: Target, schema: str, file: str, as_json: bool) -> None:
    """Judge each line of FILE by SCHEMA with two validators.

    SCHEMA is a file with a JSON Schema, FILE has JSON Lines: a value on each line, empty lines are
    skipped. A FILE of - is standard input. Lines are listed that are invalid, on which the
    validators disagree, that one of them could not decide, or that are not JSON. The exit status
    is 0 if both validators find every line valid, and 1 otherwise.
    """
    report = Report()
    with spinner(f"validating {file}"):
        _judge(MesClient(target), _schema(schema), file, report)
    if not report.counts:
        raise CommandError(f"{file} has no values; write one on each line")
    if as_json:
        print_json({"totals": report.totals, "lines": report.findings})
    else:
        _print(report)
    ctx.exit(1 if report.findings else 0)


def _judge(client: MesClient, schema: Any, file: str, report: Report) -> None:
    with _opened(file) as stream:
        for batch in _batches(_instances(stream, report)):
            for instance, result in zip(batch, _results(client, schema, file, batch), strict=True):
                report.add(instance.line, _result(result), **result)
    report.findings.sort(key=lambda finding: int(finding["line"]))


def _schema(path: str) -> Any:
    try:
        return strict_json.parse_json(Path(path).read_bytes())
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    except strict_json.NotJson as exc:
        raise CommandError(f"{path} is not JSON: {exc}; correct the schema") from exc


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        with open(path, "rb") as stream:
            yield stream
    except OSError as exc:
        raise _unreadable(path, exc) from exc


def _unreadable(path: str, error: OSError) -> CommandError:
    return CommandError(f"{path} cannot be read ({error.strerror}); name a file that can be")


def _instances(lines: Iterable[bytes], report: Report) -> Iterator[Instance]:
    """Yield the values of the lines; lines that are not JSON go into the report."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = strict_json.parse_json(line, max_depth=_DEEPEST)
        except strict_json.NotJson as exc:
            # Each line is a document of its own to the parser, so it is always in its line 1.
            report.add(number, NOT_JSON, detail=str(exc).replace("line 1 column", "column"))
        else:
            yield Instance(number, value, len(json.dumps(value)))


def _batches(instances: Iterable[Instance]) -> Iterator[list[Instance]]:
    """Yield as many at a time as one request may have."""
    batch: list[Instance] = []
    size = 0
    for instance in instances:
        if batch and (len(batch) == _MOST_INSTANCES or size + instance.bytes > _MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(instance)
        size += instance.bytes + len(", ")
    if batch:
        yield batch


def _results(
    client: MesClient, schema: Any, file: str, batch: list[Instance]
) -> list[dict[str, Any]]:
    """Return the service's result for each instance of the batch."""
    body = {"json_schema": schema, "instances": [each.value for each in batch]}
    try:
        results = client.post("/v1/schemas/validate", body)["results"]
    except CommandError as exc:
        if exc.code != "content_too_large":
            raise
        lines = f"lines {batch[0].line} to {batch[-1].line}"
        lines = lines if len(batch) > 1 else f"line {batch[0].line}"
        raise CommandError(f"{file}: {lines}: {exc.message}; see MAX_BODY_BYTES", exc.code) from exc
    return [{name: each[name] for name in ("mes", "jsonschema")} for each in results]


def _result(verdicts: dict[str, Any]) -> str:
    mes, jsonschema = (verdicts[name]["verdict"] for name in ("mes", "jsonschema"))
    if UNDECIDED in (mes, jsonschema):
        return UNDECIDED
    return str(mes) if mes == jsonschema else DISAGREEMENT


def _print(report: Report) -> None:
    if report.findings:
        console().print(_table(report.findings))
    click.echo(", ".join(f"{name} {count}" for name, count in report.totals.items()))


def _table(findings: list[dict[str, Any]]) -> Table:
    made = table("LINE", "RESULT", "MES", "JSONSCHEMA", "POINTER", "DETAIL", numbers=("LINE",))
    for finding in findings:
        verdicts = [finding[name] for name in ("mes", "jsonschema") if name in finding]
        words = [each["verdict"] for each in verdicts] or ["-", "-"]
        pointer, detail = _reason(finding, verdicts)
        made.add_row(
            str(finding["line"]),
            finding["result"],
            *words,
            without_control_characters(pointer),
            without_control_characters(detail),
        )
    return made


def _reason(finding: dict[str, Any], verdicts: list[dict[str, Any]]) -> tuple[str, str]:
    """Return the pointer and the detail of the first mistake."""
    if "detail" in finding:
        return "-", str(finding["detail"])
    for verdict in verdicts:
        if finding["result"] == UNDECIDED and verdict["reason"]:
            return "-", str(verdict["reason"])
        if finding["result"] != UNDECIDED and verdict["errors"]:
            error = verdict["errors"][0]
            return error["pointer"] or "-", str(error["detail"])
    return "-", "-"
