"""The README is short and in reading order, and the tables of the documents agree with the code."""

from __future__ import annotations

import re
from pathlib import Path

from mes import errors
from mes.api import problems
from mes.api.inference_schemas import InferenceRequestSchema
from mes.cli.main import mes
from mes.config.catalog_schema import ModelSchema
from mes.config.settings import settings_table
from mes.server import connection

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
API = (ROOT / "docs/api.md").read_text()
SETTINGS = (ROOT / "docs/settings.md").read_text()
TROUBLESHOOTING = (ROOT / "docs/operations.md").read_text().partition("## Troubleshooting")[2]


def error_codes(kind: type[errors.MesError] = errors.MesError) -> set[tuple[int, str]]:
    """Return the status and the code of each error class."""
    codes = {(problems.status_for(kind("")), kind.code)} if "code" in vars(kind) else set()
    return codes.union(*(error_codes(each) for each in kind.__subclasses__()))


def test_the_readme_is_short_and_in_reading_order():
    assert len(README.splitlines()) <= 250
    chapters = re.findall(r"^## (.*)", README, re.MULTILINE)
    assert chapters[:3] == ["Quickstart", "Python", "Add a model"]
    first_example = README.index("```bash\ncurl ")
    assert README.index("```\nmake run\n```") < first_example < README.index("```python")


def test_the_example_of_settings_has_the_same_descriptions():
    example = (ROOT / ".env.example").read_text()
    for name, default, text in settings_table():
        comment = re.search(rf"((?:^# .*\n)+)# {name}={re.escape(default)}$", example, re.MULTILINE)
        assert comment is not None, name
        described = " ".join(line.removeprefix("# ") for line in comment[1].splitlines())
        assert described == f"{text}."


def test_every_command_is_in_the_table():
    rows = re.findall(
        r"^\| (`mes .*?) \|", (ROOT / "docs/command-line.md").read_text(), re.MULTILINE
    )
    documented = re.findall(r"`mes (\w+)", " ".join(rows))
    assert set(mes.commands) == set(documented)


def test_every_setting_is_in_the_table_with_its_default():
    for name, default, text in settings_table():
        shown = f"`{default}`" if default else ""
        assert f"| `{name}` | {shown} | {text} |" in SETTINGS


def named_in_rows(text: str) -> set[str]:
    """Return the names in the first column of a table."""
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return set(re.findall(r"`(\w+)`", " ".join(rows)))


def test_every_field_of_the_catalog_is_in_its_table():
    assert named_in_rows(SETTINGS.partition("## The catalog")[2]) == set(ModelSchema().fields)


def test_every_field_of_an_inference_is_in_its_table():
    chapter = API.partition("## `POST /v1/inference`")[2].partition("\n### ")[0]
    assert named_in_rows(chapter) == set(InferenceRequestSchema().fields)


def test_the_defaults_in_the_texts_are_those_of_the_settings():
    defaults = {name: default for name, default, _ in settings_table()}
    texts = "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    mentions = re.findall(r"`([A-Z_]+)` \((\d+)(?: s)?\)", texts)
    assert {"MAX_CHOICES", "QUEUE_TIMEOUT", "STREAM_WRITE_TIMEOUT"} <= {
        name for name, _ in mentions
    }
    assert [(name, value) for name, value in mentions if str(defaults[name]) != value] == []


def test_every_error_is_in_the_table_with_its_status():
    rows = re.findall(r"^\| ([\d, ]+) \| ([`\w, ]+) \|", API, re.MULTILINE)
    documented = {
        (int(status), code)
        for statuses, codes in rows
        for status in statuses.split(", ")
        for code in re.findall(r"\w+", codes)
    }
    # For the log only: the client has closed its connection.
    hidden = {(499, "client_closed_request")}
    assert error_codes() - hidden <= documented


def test_every_error_and_every_warning_is_in_the_troubleshooting():
    codes = {code for _, code in error_codes()} | {
        kind.code for kind in connection.SERVER_ERRORS.values()
    }
    documented = set(re.findall(r"`(?:\d+ )?([a-z]+(?:_[a-z]+)+|[a-z]{5,})`", TROUBLESHOOTING))
    assert codes | warnings() <= documented


def warnings() -> set[str]:
    """Return the events that the service logs as warnings and errors."""
    modules = [path for path in (ROOT / "mes").rglob("*.py") if "embedded" not in path.parts]
    logged = re.compile(r"log\.(?:warning|error|exception)\(\"(\w+)\"")
    return {event for path in modules for event in logged.findall(path.read_text())}


def test_nginx_and_mes_have_the_same_code_for_a_status():
    configuration = (ROOT / "deploy/nginx.conf").read_text()
    listed = re.search(r"map \$status \$mes_code {(.*?)}", configuration, re.DOTALL)
    assert listed is not None
    in_nginx = {int(status): code for status, code in re.findall(r"(\d+) (\w+);", listed[1])}
    in_mes = {each.status: each.code for each in connection.SERVER_ERRORS.values()}

    shared = in_nginx.keys() & in_mes.keys() - {500}
    assert {405, 414, 431, 501} <= shared
    assert {status: in_nginx[status] for status in shared} == {
        status: in_mes[status] for status in shared
    }
