"""The soak in small: full load and all the trouble there is, and every promise is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.support.process import ROOT

MINUTES = os.environ.get("MES_TEST_SOAK_MINUTES", "2")


@pytest.mark.soak
def test_every_promise_is_kept_through_a_soak(tmp_path):
    file = tmp_path / "soak.json"
    command = [sys.executable, "-m", "bench.soak", f"--minutes={MINUTES}", f"--json={file}"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60 * float(MINUTES) + 600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(file.read_text())
    assert told["kept"]
    # It was a soak: work was done, and each kind of trouble made.
    answered = {kind: found.get("200", 0) for kind, found in told["outcomes"].items()}
    assert min(answered[kind] for kind in ("plain", "schema", "status", "metrics")) > 0
    assert set(told["trouble"]) == {"reload", "kill", "restart", "fault"}
