"""Tests of shell completion in a real bash."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time

import pytest

from tests.cli.conftest import HERE
from tests.support.process import ROOT, free_port

COMPLETE = """
eval "$(mes completion bash)"
for COMP_LINE in "$@"; do
    COMP_POINT=${#COMP_LINE} COMPREPLY=()
    _mes_completion mes
    echo "${COMPREPLY[*]}"
done
"""


@pytest.fixture
def bash_environ(environ, tmp_path):
    """Return the environment of a shell in which `mes` is the command of this checkout."""
    program = tmp_path / "bin" / "mes"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m mes "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    return {**os.environ, **environ, "MES_URL": "", "PATH": path, "PS1": "$ ", "TERM": "dumb"}


LINES = {
    "mes run smol": HERE,
    # bash replaces what follows the last colon.
    "mes show smollm2:1": "135m",
    "mes run --model=smollm2:1": "135m",
    "mes key re": "revoke",
    f"mes run {HERE} --max-": "--max-tokens --max-attempts",
    f"mes run {HERE} smol": "",
}


def completed(environ, folder, *lines: str) -> dict[str, str]:
    """Return the completions of each line, as bash calls the function for them."""
    command = ["bash", "--norc", "-c", COMPLETE, "bash", *lines]
    done = subprocess.run(
        command, env=environ, cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    return dict(zip(lines, done.stdout.splitlines(), strict=True))


def test_commands_options_values_and_models_are_completed(bash_environ, tmp_path):
    assert completed(bash_environ, tmp_path, *LINES) == LINES


def test_without_a_service_no_model_is_completed(bash_environ, tmp_path):
    line = f"mes --url 127.0.0.1:{free_port()} run smol"
    assert completed(bash_environ, tmp_path, line) == {line: ""}


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_script(mes, shell):
    result = mes("completion", shell)
    assert result.exit_code == 0
    assert f"_MES_COMPLETE={shell}_complete" in result.stdout


def test_a_tab_completes_the_name_of_a_model(bash_environ, tmp_path):
    master, slave = pty.openpty()
    streams = {"stdin": slave, "stdout": slave, "stderr": slave}
    bash = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        env=bash_environ,
        cwd=tmp_path,
        start_new_session=True,
        **streams,
    )
    os.close(slave)
    os.write(master, b'eval "$(mes completion bash)"; echo defined\n')
    _wait_for(master, "\ndefined")
    os.write(master, b"mes show smollm2:1\t")
    _wait_for(master, f"mes show {HERE} ")
    bash.kill()
    bash.wait()
    os.close(master)


def _wait_for(terminal: int, text: str) -> None:
    shown, deadline = "", time.monotonic() + 30
    while text not in shown:
        assert time.monotonic() < deadline, f"no {text!r} in {shown!r}"
        if select.select([terminal], [], [], 0.5)[0]:
            shown += os.read(terminal, 65536).decode()
