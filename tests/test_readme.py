"""The README stays true: its tables are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

from mes import errors
from mes.api import problems
from mes.settings import settings_table

README = (Path(__file__).parent.parent / "README.md").read_text()


def error_codes(kind: type[errors.MesError] = errors.MesError) -> set[tuple[int, str]]:
    """Every status and code that can leave the house."""
    own = {(problems.status_of(kind("")), kind.code)} if "code" in vars(kind) else set()
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
