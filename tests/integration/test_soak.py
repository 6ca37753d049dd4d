"""A short soak test: full load and every kind of fault, and every guarantee is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.support.process import ROOT

MINUTES = os.environ.get("MES_TEST_SOAK_MINUTES", "2")


@pytest.mark.soak
def test_every_guarantee_is_kept_in_a_soak_test(tmp_path):
    file = tmp_path / "soak.json"
    command = [sys.executable, "-m", "bench.soak", f"--minutes={MINUTES}", f"--json={file}"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60 * float(MINUTES) + 600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(file.read_text())
    assert report["kept"]
    # Requests of each kind were answered, and each kind of fault was injected.
    answered = {kind: found.get("200", 0) for kind, found in report["outcomes"].items()}
    kinds = ("plain", "schema", "bomb", "status", "health", "metrics")
    assert min(answered[kind] for kind in kinds) > 0
    process_faults = {"reload", "kill", "restart", "stop"}
    model_faults = {"delete", "update", "stick"}
    assert set(report["trouble"]) == {*process_faults, *model_faults, "fault", "unread"}
