"""Tests of the check for runners that a killed Ollama has left behind, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mes.cli.checks.runners import orphan_findings
from tests.support.process import wait_until


@pytest.mark.parametrize(
    "runner",
    [
        ["ollama", "runner", "--model", "/models/blobs/sha256-1"],
        ["llama-server", "runner", "--model", "/models/blobs/sha256-1"],
    ],
    ids=lambda words: words[0],
)
def test_the_runners_of_a_killed_ollama_are_found(tmp_path, runner):
    for program in ("ollama", "llama-server"):
        (tmp_path / program).symlink_to(sys.executable)
    (tmp_path / "runner").write_text("import time; time.sleep(600)")
    (tmp_path / "serve").write_text(
        "import subprocess, sys, time\n"
        "print(subprocess.Popen(sys.argv[1:]).pid, flush=True)\n"
        "time.sleep(600)"
    )
    words = [tmp_path / "ollama", "serve", tmp_path / runner[0], *runner[1:]]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as ollama:
        pid = int(ollama.stdout.readline())
        try:
            # The kernel fills this file some time after Popen returns.
            wait_until(lambda: b"sha256-1" in Path(f"/proc/{pid}/cmdline").read_bytes())
            assert all(f"process {pid} " not in each.text for each in orphan_findings())
            ollama.kill()
            ollama.wait()
            (found,) = (each for each in orphan_findings() if f"process {pid} " in each.text)
            assert found.level == "warn"
            assert found.text.endswith(f"; end it with: kill {pid}")
        finally:
            os.kill(pid, signal.SIGKILL)
