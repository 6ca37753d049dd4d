"""Every example of the documentation runs, and prints the documented output."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.clients.environments import python_of
from tests.support.process import ROOT
from tests.support.served import Served

FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLE = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXAMPLES = [found for path in FILES for found in EXAMPLE.findall(path.read_text())]
CURL = re.compile(r"^```\n(curl .*?)^```", re.MULTILINE | re.DOTALL)
CURLS = [
    found for path in FILES for found in CURL.findall(path.read_text()) if "127.0.0.1:8001" in found
]
# Clients that cannot be installed beside the newest SDK are in another virtual environment.
OLDER = ("instructor", "llama_index")


def _command(language: str, text: str) -> list[str]:
    if language == "bash":
        return ["bash", "-c", text]
    if not any(f"import {name}" in text or f"from {name}" in text for name in OLDER):
        return [sys.executable, "-c", text]
    return [python_of("documented"), "-c", text]


def _documented_output(text: str) -> list[str]:
    """Return the lines of the comment at the end, which the output has to contain in order."""
    comment = re.search(r"(?:^# .*\n)+\Z", text, re.MULTILINE)
    return [line.removeprefix("# ") for line in comment[0].splitlines()] if comment else []


def _environment(served: Served) -> dict[str, str]:
    """Return an environment in which the command `mes` reaches the service."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "MES_URL": f"http://127.0.0.1:{served.port}",
        "MES_API_KEY": "mes-dev-key-123",
    }


def _run(command: list[str], *, status: int = 0, **more: Any) -> str:
    """Return the output of a command that exits with this status."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **more)
    assert done.returncode == status, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("language", "text"), EXAMPLES, ids=lambda value: value[:40].split("\n")[0]
)
def test_an_example_prints_its_documented_output(
    served: Served, tmp_path: Path, language: str, text: str
):
    # In a folder and a home of its own, for the files that it writes.
    environment = {**_environment(served), "HOME": str(tmp_path)}
    command = _command(language, served.addressed(text))
    remaining = output = _run(command, cwd=tmp_path, env=environment)
    expected = _documented_output(text)
    assert expected
    for part in filter(None, "\n".join(expected).split("...")):
        assert part.strip() in remaining, (part, output)
        remaining = remaining.partition(part.strip())[2]


@pytest.mark.parametrize("curl", CURLS, ids=lambda value: value.split()[2])
def test_a_curl_command_is_answered(served: Served, curl: str):
    lines = [
        json.loads(line) for line in _run(_command("bash", served.addressed(curl))).splitlines()
    ]

    assert lines
    assert not [line for line in lines if "error" in line or line.get("status", 200) >= 400]


def test_the_example_of_mes_validate_prints_the_documented_table(served: Served, tmp_path: Path):
    guide = (ROOT / "docs/structured-output.md").read_text()
    script, table = re.findall(
        r"^```\n(cat > person.json.*?)^```.*?^```\n(LINE .*?)^```", guide, re.MULTILINE | re.DOTALL
    )[0]
    printed = _run(["bash", "-c", script], status=1, cwd=tmp_path, env=_environment(served))

    assert [line.split() for line in printed.splitlines()] == [
        line.split() for line in table.splitlines()
    ]


def test_there_is_an_example_for_each_client():
    code = "\n".join(text for _, text in EXAMPLES)
    for client in ("curl", "requests", "openai", "langchain_openai", "llama_index", "instructor"):
        assert client in code
