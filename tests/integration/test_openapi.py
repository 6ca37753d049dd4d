"""The interface under real gunicorn is the one that /openapi.json and /docs tell of."""

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
    # Whoever says where it comes from is believed: see the hooks.
    return start(models={MODEL: {"max_concurrent": 4}, EMBEDDER: {}}, TRUSTED_PROXIES=1)


@pytest.mark.usefixtures("clean")
def test_schemathesis_finds_no_answer_that_the_document_does_not_tell_of(service, tmp_path):
    command = [sys.executable, "-m", "schemathesis.cli", f"--config-file={HERE}/schemathesis.toml"]
    command += ["run", f"{service.url}/openapi.json", "-H", f"Authorization: Bearer {KEY}"]
    told = {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(HERE)}
    done = subprocess.run(
        command,
        env={**os.environ, **told},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    heard = Counter((line.get("path"), line["status"]) for line in service.log_lines("request"))
    # It has come as far as the model, and has been refused.
    assert heard["/v1/inference", 200] > 10
    assert heard["/v1/inference", 422] > 10
    assert heard["/v1/embeddings", 200] >= 1
    assert heard["/v1/embeddings", 400] > 10
    assert not any(status in (500, 502) for _, status in heard)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.usefixtures("clean")
def test_every_curl_of_the_page_can_be_pasted(service):
    commands = [html.unescape(each) for each in _shown(service.get("/docs").text)]
    environment = {**os.environ, "MES_URL": service.url, "MES_API_KEY": KEY}
    assert len(commands) > 10
    for command in commands:
        shell = ["bash", "-c", f"{command} -o /dev/null -w '%{{http_code}}'"]
        done = subprocess.run(shell, env=environment, capture_output=True, text=True, check=True)
        # Nobody waits, so the place in the queue is the one thing that is not there.
        assert done.stdout == ("404" if "/v1/queue/" in command else "200"), command


def _shown(page: str) -> list[str]:
    return re.findall(r"<pre>(curl.*?)</pre>", page, re.DOTALL)
