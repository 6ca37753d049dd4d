"""Every example of docs/clients.md prints the documented output."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.clients.environments import python_of
from tests.support.process import ROOT
from tests.support.served import Served

EXAMPLE = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXAMPLES = EXAMPLE.findall((ROOT / "docs/clients.md").read_text())
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


@pytest.mark.parametrize(
    ("language", "text"), EXAMPLES, ids=lambda value: value[:40].split("\n")[0]
)
def test_an_example_prints_its_documented_output(served: Served, language: str, text: str):
    done = subprocess.run(
        _command(language, served.addressed(text)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    remaining = done.stdout
    expected = _documented_output(text)
    assert expected
    for line in expected:
        assert line in remaining, (line, done.stdout)
        remaining = remaining.partition(line)[2]


def test_there_is_an_example_for_each_client():
    code = "\n".join(text for _, text in EXAMPLES)
    for client in ("curl", "requests", "openai", "langchain_openai", "llama_index", "instructor"):
        assert client in code
