"""The interface under gunicorn is the one that /openapi.json and /docs describe."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support.service import KEY

HERE = Path(__file__).parent
MODEL, EMBEDDER = "smollm2:135m", "all-minilm"


@pytest.fixture(scope="module")
def service(start, runtime):
    runtime.control(models={MODEL: {}, EMBEDDER: {}})
    # Each request states its address: see schemathesis_hooks.py.
    return start(models={MODEL: {"max_concurrent": 4}, EMBEDDER: {}}, TRUSTED_PROXIES=1)


@pytest.mark.usefixtures("clean")
def test_schemathesis_finds_no_response_that_the_document_does_not_describe(service, tmp_path):
    command = [sys.executable, "-m", "schemathesis.cli", f"--config-file={HERE}/schemathesis.toml"]
    command += ["run", f"{service.url}/openapi.json", "-H", f"Authorization: Bearer {KEY}"]
    settings = {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(HERE)}
    done = subprocess.run(
        command,
        env={**os.environ, **settings},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = Counter((line.get("path"), line["status"]) for line in service.log_lines("request"))
    # Requests have reached the model, and others were rejected.
    assert counts["/v1/inference", 200] > 10
    assert counts["/v1/inference", 422] > 10
    assert counts["/v1/embeddings", 200] >= 1
    assert counts["/v1/embeddings", 400] > 10
    assert not any(status in (500, 502) for _, status in counts)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.usefixtures("clean")
def test_every_curl_of_the_page_can_be_pasted(service):
    commands = [html.unescape(each) for each in _curl_commands(service.get("/docs").text)]
    environment = {**os.environ, "MES_URL": service.url, "MES_API_KEY": KEY}
    assert len(commands) > 10
    # The model is deleted first and pulled next, so that the others find it.
    for command in sorted(
        commands, key=lambda each: ("-X DELETE" not in each, "/pull" not in each)
    ):
        shell = ["bash", "-c", f"{command} -o /dev/null -w '%{{http_code}}'"]
        done = subprocess.run(shell, env=environment, capture_output=True, text=True, check=True)
        # No request waits, so its position in the queue is the one resource that is not found.
        assert done.stdout == ("404" if "/v1/queue/" in command else "200"), command


def _curl_commands(page: str) -> list[str]:
    return re.findall(r"<pre>(curl.*?)</pre>", page, re.DOTALL)
