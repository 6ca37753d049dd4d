"""The README stays true: its tables are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

from mes import errors
from mes.api import problems
from mes.config.settings import settings_table
from mes.server import connection

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TROUBLESHOOTING = (ROOT / "docs/operations.md").read_text().partition("## Troubleshooting")[2]


def error_codes(kind: type[errors.MesError] = errors.MesError) -> set[tuple[int, str]]:
    """Every status and code that can leave the house."""
    own = {(problems.status_for(kind("")), kind.code)} if "code" in vars(kind) else set()
    return own.union(*(error_codes(each) for each in kind.__subclasses__()))


def test_every_setting_stands_in_the_table_with_its_default():
    for name, default, text in settings_table():
        shown = f"`{default}`" if default else ""
        assert f"| `{name}` | {shown} | {text} |" in README


def test_every_error_stands_in_the_table_with_its_status():
    rows = re.findall(r"^\| ([\d, ]+) \| ([`\w, ]+) \|", README, re.MULTILINE)
    told = {
        (int(status), code)
        for statuses, codes in rows
        for status in statuses.split(", ")
        for code in re.findall(r"\w+", codes)
    }
    hidden = {(499, "client_closed_request")}
    assert error_codes() - hidden <= told


def test_every_error_and_every_warning_has_an_answer_in_the_troubleshooting():
    codes = {code for _, code in error_codes()} | {
        kind.code for kind in connection.SERVER_ERRORS.values()
    }
    answered = set(re.findall(r"`(?:\d+ )?([a-z]+(?:_[a-z]+)+|[a-z]{5,})`", TROUBLESHOOTING))
    assert codes | warnings() <= answered


def warnings() -> set[str]:
    """The events that the service logs as warnings and errors."""
    rooms = [path for path in (ROOT / "mes").rglob("*.py") if "embedded" not in path.parts]
    logged = re.compile(r"log\.(?:warning|error|exception)\(\"(\w+)\"")
    return {event for path in rooms for event in logged.findall(path.read_text())}
