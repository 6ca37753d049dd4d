"""The table of clients in docs/clients.md agrees with the tests and the installed versions."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

from tests.support.process import ROOT

HERE = Path(__file__).parent
ROW = re.compile(
    r"^\| ([\w@/.-]+) \| ([\d.]+) \| [^|]+ \| [^|]+ \| `(\w+)/(\w+\.\w+)`( \*)? \|$", re.M
)
CALL = re.compile(r"run_client\('(\w+)', '([\w.]+)'")
REQUIREMENT = re.compile(r"^([\w.-]+)(?:\[\w+\])? ==([\d.]+)$", re.MULTILINE)


def rows() -> list[tuple[str, str, str, str, bool]]:
    """Return client, version, group, program, and whether only `make clients` runs it."""
    found = ROW.findall((ROOT / "docs/clients.md").read_text())
    return [(*row[:4], bool(row[4])) for row in found]


def versions(group: str) -> dict[str, str]:
    """Return the versions that an environment is installed with."""
    python, node = HERE / group / "requirements.txt", HERE / group / "package.json"
    if node.exists():
        packages: dict[str, str] = json.loads(node.read_text())["dependencies"]
        return packages
    return dict(REQUIREMENT.findall(python.read_text()))


def programs_of_tests() -> dict[tuple[str, str], bool]:
    """Return the programs that tests run, and whether the test has the marker `clients`."""
    return {
        program: "pytest.mark.clients" in map(ast.unparse, function.decorator_list)
        for path in HERE.glob("test_*.py")
        for function in ast.parse(path.read_text()).body
        if isinstance(function, ast.FunctionDef)
        for program in CALL.findall(ast.unparse(function))
    }


def test_each_row_has_a_test_and_each_program_has_a_row():
    assert {(group, name): only_large for _, _, group, name, only_large in rows()} == (
        programs_of_tests()
    )
    groups = {group for _, _, group, _, _ in rows()}
    paths = (path for group in groups for path in (HERE / group).iterdir() if _is_program(path))
    assert {(path.parent.name, path.name) for path in paths} == programs_of_tests().keys()


def _is_program(path: Path) -> bool:
    text = path.read_text() if path.suffix in (".py", ".mjs", ".cjs") else ""
    return "print(json.dumps(" in text or "console.log(" in text


def test_each_row_names_the_version_that_is_installed():
    assert rows()
    for client, version, group, _, _ in rows():
        assert versions(group)[client] == version


def test_the_marker_and_the_makefile_agree_on_the_large_groups():
    makefile = (ROOT / "Makefile").read_text()
    large = re.search(r"^HEAVY_CLIENTS := (.*)$", makefile, re.MULTILINE)
    assert large
    assert {group for _, _, group, _, only_large in rows() if only_large} <= set(large[1].split())


def test_lock_files_name_no_host_to_download_from():
    locks = list(HERE.glob("*/package-lock.json"))
    assert locks
    for lock in locks:
        packages = json.loads(lock.read_text())["packages"].values()
        assert not [package for package in packages if "resolved" in package]
