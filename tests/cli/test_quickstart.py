"""Tests of the quickstart as a new user runs it, with real gunicorn and a real model.

They start it, run the curl commands of the README, and stop it.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mes.cli import log_files
from tests.support import process
from tests.support.process import ROOT
from tests.support.served import Served

# The curl commands of several lines; the others are for other services.
CURL = re.compile(r"^curl [^\n]*\\\n.*?'$", re.MULTILINE | re.DOTALL)
CURLS = CURL.findall((ROOT / "README.md").read_text())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("serve")) as served:
        yield served


def test_the_printed_curl_gets_a_real_models_answer(served: Served):
    answer = served.run(served.text.partition("Try:")[2].strip())
    assert answer["success"] is True
    assert "Paris" in answer["output"]
    assert answer["usage"]["completion_tokens"] > 0


def test_the_curls_of_the_readme_do_what_it_says(served: Served):
    capital, person, *_ = (served.lines(curl)[-1] for curl in CURLS)
    assert "Paris" in capital["output"]
    assert person["parsed"] == {"name": "John Smith", "age": 25}
    assert person["structured"]["verdict"] == "valid"
    assert person["provenance"]["model_digest"].startswith("sha256:")
    assert person["provenance"]["runtime"].startswith("mes-embedded ")


def test_the_curl_that_streams_gets_a_real_models_tokens(served: Served):
    *tokens, result = served.lines(CURLS[2])
    assert {token["type"] for token in tokens} == {"token"}
    assert result["type"] == "result"
    assert "".join(token["text"] for token in tokens) == result["output"]
    assert "Paris" in result["output"]


def test_the_curl_that_embeds_gets_a_real_models_vectors(served: Served):
    answer = served.run(CURLS[3])
    assert [len(item["embedding"]) for item in answer["data"]] == [384, 384]
    assert answer["usage"]["prompt_tokens"] > 8
    assert answer["mes"]["provenance"]["runtime"].startswith("mes-embedded ")


def test_the_same_seed_gives_the_same_output(served: Served):
    fields = {"model_id": "smollm2:135m", "prompt": "Tell a story.", "max_tokens": 30, "seed": 7}
    curl = CURLS[0].partition("-d '")[0] + f"-d '{json.dumps(fields)}'"
    first, second = served.run(curl), served.run(curl)
    assert first["output"] == second["output"]
    assert first["finish_reason"] == "length"


def test_a_prompt_that_does_not_fit_is_rejected_with_both_numbers(served: Served):
    fields = {"model_id": "smollm2:135m", "prompt": "word " * 5000}
    curl = CURLS[0].partition("-d '")[0] + f"-d '{json.dumps(fields)}'"
    problem = served.run(curl)
    assert problem["code"] == "prompt_too_long"
    assert re.search(r"50\d\d tokens.*4096", problem["detail"])


def test_ctrl_c_ends_everything_it_started(tmp_path: Path):
    served = Served(tmp_path)
    served.wait_until_ready()
    started = process.children(served.process.pid)
    assert len(started) == 2
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(20) == 0
    assert [process.group(pid) for pid in started] == [[], []]
    assert log_files.last_lines(tmp_path / "logs" / "runtime.log", 15)[1:] == [], "no crash"
    assert "Traceback" not in served.text


def test_a_taken_port_is_reported_without_a_traceback(served: Served, tmp_path: Path):
    second = Served(tmp_path, PORT=str(served.port))
    assert second.process.wait(30) == 1
    assert f"port {served.port} is taken" in second.text
    assert "Traceback" not in second.text


def test_wrong_settings_are_reported_all_at_once(tmp_path: Path):
    served = Served(tmp_path, MAX_LOADED_MODELS="0", QUEUE_TIMEOUT="soon")
    assert served.process.wait(30) == 1
    assert "MAX_LOADED_MODELS" in served.text
    assert "QUEUE_TIMEOUT" in served.text
    assert "Traceback" not in served.text
