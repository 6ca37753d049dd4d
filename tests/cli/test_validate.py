"""`mes validate`: each line judged by a real service with two validators."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import KEY
from tests.support.process import ROOT

PERSON = {
    "type": "object",
    "properties": {"age": {"type": "number"}, "score": {"multipleOf": 0.01}},
    "required": ["age"],
}
GOOD, BAD, DISPUTED = '{"age": 25}', '{"age": "25"}', '{"age": 1, "score": 4.02}'


@pytest.fixture
def written(tmp_path):
    """Write `schema.json` and `lines.jsonl` into the folder in which the command runs."""

    def write(*lines: str | bytes, schema: Any = PERSON) -> tuple[str, str]:
        (tmp_path / "schema.json").write_text(json.dumps(schema))
        encoded = [each if isinstance(each, bytes) else each.encode() for each in lines]
        (tmp_path / "lines.jsonl").write_bytes(b"\n".join(encoded) + b"\n")
        return "schema.json", "lines.jsonl"

    return write


def rows(output: str) -> dict[str, list[str]]:
    """The words of each row of the table, by the line that it is about."""
    return {words[0]: words[1:] for words in map(str.split, output.splitlines()) if words}


def test_where_all_lines_are_valid_the_exit_status_is_0(mes, written):
    result = mes("validate", *written(GOOD, GOOD))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "lines 2, valid 2, invalid 0, disagreement 0, undecided 0, not_json 0\n"


def test_a_byte_order_mark_is_passed_over(mes, written, tmp_path):
    schema, lines = written(GOOD)
    for name in (schema, lines):
        path = tmp_path / name
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert mes("validate", schema, lines).exit_code == 0


def test_invalid_lines_and_disagreements_are_named_by_line_and_fail(mes, written):
    result = mes("validate", *written(GOOD, BAD, "", DISPUTED))
    assert (result.exit_code, result.stderr) == (1, "")
    table = rows(result.stdout)
    assert set(table) == {"LINE", "2", "4", "lines"}
    assert table["2"][:4] == ["invalid", "invalid", "invalid", "/age"]
    assert " ".join(table["2"][4:]) == 'the value is not of type "number"'
    assert table["4"][:4] == ["disagreement", "valid", "invalid", "/score"]
    assert " ".join(table["4"][4:]) == "the value is not a multiple of 0.01"
    assert "lines 3, valid 1, invalid 1, disagreement 1" in result.stdout


@pytest.mark.parametrize("line", ['{"age": }', '{"age": 1, "age": 2}', "NaN", b'"\xff"', "[" * 127])
def test_a_line_that_is_not_json_is_named_and_the_others_are_judged(mes, written, line):
    result = mes("validate", *written(GOOD, line, BAD))
    assert result.exit_code == 1
    table = rows(result.stdout)
    assert table["2"][:4] == ["not_json", "-", "-", "-"]
    assert table["3"][0] == "invalid"
    assert "lines 3, valid 1, invalid 1, disagreement 0, undecided 0, not_json 1" in result.stdout


def test_what_could_not_be_decided_is_neither_valid_nor_invalid_and_fails(mes, written):
    result = mes("validate", *written('"é"', schema={"pattern": r"^\p{L}$"}))
    assert result.exit_code == 1
    assert rows(result.stdout)["1"][:3] == ["undecided", "valid", "undecided"]
    assert r"bad escape \p" in result.stdout


def test_scripts_get_totals_and_the_lines_that_are_not_valid(mes, written):
    result = mes("validate", *written(GOOD, BAD, "{"), "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["totals"] == {
        "lines": 3,
        "valid": 1,
        "invalid": 1,
        "disagreement": 0,
        "undecided": 0,
        "not_json": 1,
    }
    invalid, not_json = report["lines"]
    assert (invalid["line"], invalid["result"]) == (2, "invalid")
    assert invalid["jsonschema"]["errors"][0]["pointer"] == "/age"
    assert (not_json["line"], not_json["result"]) == (3, "not_json")


def test_a_dash_reads_standard_input(mes, written):
    schema, _ = written()
    result = mes("validate", schema, "-", input=f"{GOOD}\n{BAD}\n")
    assert result.exit_code == 1
    assert set(rows(result.stdout)) == {"LINE", "2", "lines"}


def test_more_lines_than_a_request_may_have_are_sent_in_several(mes, service, written):
    before = len(service.log_lines("request"))
    result = mes("validate", *written(*[GOOD] * 2_000, BAD, GOOD))
    assert result.exit_code == 1
    assert set(rows(result.stdout)) == {"LINE", "2001", "lines"}
    sent = [each["path"] for each in service.log_lines("request")[before:]]
    assert sent.count("/v1/schemas/validate") == 3


def test_long_lines_are_sent_in_requests_that_are_accepted(mes, written):
    long = json.dumps({"age": 1, "name": "é" * 50_000}, ensure_ascii=False)
    result = mes("validate", *written(*[long] * 8))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("lines 8, valid 8,")


def test_a_line_beyond_the_largest_body_is_named(mes, written):
    result = mes("validate", *written(GOOD, json.dumps("x" * 1_100_000)))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "lines.jsonl: line 2: " in result.stderr
    assert "see MAX_BODY_BYTES" in result.stderr


def test_a_schema_that_is_refused_is_one_line(mes, written):
    result = mes("validate", *written(GOOD, schema={"type": "no-such-type"}))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("mes: json_schema is not a valid JSON Schema: ")
    assert "(schema_invalid, request " in result.stderr


WRONG = {
    "no schema": (["none.json", "lines.jsonl"], "none.json cannot be read"),
    "no lines": (["schema.json", "none.jsonl"], "none.jsonl cannot be read"),
    "a schema that is not JSON": (["lines.jsonl", "lines.jsonl"], "lines.jsonl is not JSON: "),
    "nothing to judge": (["schema.json", "/dev/null"], "/dev/null has no values"),
}


@pytest.mark.parametrize(("arguments", "problem"), WRONG.values(), ids=WRONG)
def test_what_goes_wrong_is_one_line_with_a_remedy(mes, written, arguments, problem):
    written(GOOD, GOOD)
    result = mes("validate", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert problem in result.stderr


def test_the_names_in_a_value_cannot_steer_the_terminal(mes, written):
    names = json.dumps({"a\x1b]0;owned\x07b": 1})
    result = mes("validate", *written(names, schema={"additionalProperties": {"type": "string"}}))
    assert "\x1b" not in result.stdout
    assert "/a]0;ownedb" in result.stdout


DOCUMENTED = (ROOT / "docs/structured-output.md").read_text().partition("## Two validators")[2]
EXAMPLE, PRINTED, CURL, ANSWER = DOCUMENTED.split("```")[1:9:2]


@pytest.fixture
def bash(service, tmp_path):
    """Run an example of the documentation in an empty folder, against the service."""

    def run(text: str) -> subprocess.CompletedProcess[str]:
        text = text.replace("127.0.0.1:8001", f"127.0.0.1:{service.port}")
        env = {**os.environ, "MES_URL": service.url, "MES_API_KEY": KEY, "PYTHONPATH": str(ROOT)}
        env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
        command = ["bash", "-c", text.replace("mes-dev-key-123", KEY)]
        return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)

    return run


def test_the_documented_command_prints_what_is_documented(bash):
    done = bash(EXAMPLE)
    assert done.returncode == 1, done.stderr
    printed = [line.rstrip() for line in done.stdout.splitlines()]
    assert printed == PRINTED.strip().splitlines()


def test_the_documented_request_is_answered_as_documented(bash):
    answer, documented = json.loads(bash(CURL).stdout), json.loads(ANSWER)
    depends_on_versions = {"schema_sha256": "...", "validators": {}}
    assert {**answer, **depends_on_versions} == {**documented, **depends_on_versions}
