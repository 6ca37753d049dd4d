"""Tests of the quickstart as a new user runs it, with real gunicorn and a real model.

They start it, run the commands of the README and of docs/api.md, add a model, and stop it.
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
from tests.support.process import ROOT, wait_until
from tests.support.served import Served

README = (ROOT / "README.md").read_text()
# The curl commands of several lines; the others are for other services.
CURL = re.compile(r"^curl [^\n]*\\\n.*?'$", re.MULTILINE | re.DOTALL)
CURLS = CURL.findall(README)
API = (ROOT / "docs/api.md").read_text()
STREAMED, EMBEDDED = CURL.findall(API)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a working folder with the models of the checkout, to which a test may add one."""
    folder = tmp_path_factory.mktemp("serve")
    (folder / "models").mkdir()
    for model in (ROOT / "models").glob("*.gguf"):
        (folder / "models" / model.name).symlink_to(model)
    return folder


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    with Served(folder, EMBEDDED_MODELS_DIR=str(folder / "models")) as served:
        yield served


def test_the_printed_curl_gets_a_real_models_answer(served: Served):
    answer = served.run(served.text.partition("Try:")[2].strip())
    assert answer["success"] is True
    assert "Paris" in answer["output"]
    assert answer["usage"]["completion_tokens"] > 0


def test_the_curls_of_the_readme_do_what_it_says(served: Served):
    capital, person = (served.run(curl) for curl in CURLS)
    assert "Paris" in capital["output"]
    assert person["parsed"] == {"name": "John Smith", "age": 25}
    assert person["structured"]["verdict"] == "valid"
    assert person["provenance"]["model_digest"].startswith("sha256:")
    assert person["provenance"]["runtime"].startswith("mes-embedded ")


def test_an_inference_has_the_documented_fields(served: Served):
    chapter = API.partition("## `POST /v1/inference`\n")[2]
    documented = re.findall(r"^```\n({.*?})\n```", chapter, re.MULTILINE | re.DOTALL)[0]
    expected, answer = json.loads(documented.replace("{...}", "{}")), served.run(CURLS[1])
    assert answer.keys() == expected.keys()
    for name in ("structured", "provenance", "timings"):
        assert answer[name].keys() == expected[name].keys()
    for name in ("success", "model_id", "output", "parsed", "finish_reason", "usage"):
        assert answer[name] == expected[name]


def test_the_curl_that_streams_gets_a_real_models_tokens(served: Served):
    *tokens, result = served.lines(STREAMED)
    assert {token["type"] for token in tokens} == {"token"}
    assert result["type"] == "result"
    assert "".join(token["text"] for token in tokens) == result["output"]
    assert "Paris" in result["output"]


def test_the_curl_that_embeds_gets_a_real_models_vectors(served: Served):
    answer = served.run(EMBEDDED)
    assert [len(item["embedding"]) for item in answer["data"]] == [384, 384]
    assert answer["usage"]["prompt_tokens"] > 8
    assert answer["mes"]["provenance"]["runtime"].startswith("mes-embedded ")


def test_a_model_is_added_as_the_readme_says(served: Served, folder: Path):
    chapter = README.partition("## Add a model")[2].partition("\n## ")[0]
    catalog = folder / "config/models.embedded.json"
    assert f"`{catalog.relative_to(folder)}`" in chapter
    [file] = re.findall(r"`(models/\S+--\S+\.gguf)`", chapter)
    [entry] = re.findall(r"```json\n(.*?)```", chapter, re.DOTALL)
    [(model, question)] = re.findall(r"^\.venv/bin/mes run (\S+) \"(.*)\"$", chapter, re.MULTILINE)

    (folder / file).symlink_to(folder / "models/smollm2--135m.gguf")
    document = json.loads(catalog.read_text())
    document["models"] |= json.loads(f"{{{entry}}}")
    catalog.write_text(json.dumps(document))
    fields = {"model_id": model, "prompt": question, "temperature": 0}
    curl = CURLS[0].partition("-d '")[0] + f"-d '{json.dumps(fields)}'"
    # The edit takes effect within a second.
    assert wait_until(lambda: served.run(curl).get("code") != "model_not_found")
    answer = served.run(curl)

    assert answer["success"], answer
    assert "Paris" in answer["output"]


def test_an_answer_with_vectors_has_the_documented_fields(served: Served):
    guide = (ROOT / "docs/embeddings.md").read_text()
    documented = re.findall(r'^```\n({"object".*?})\n```', guide, re.MULTILINE | re.DOTALL)[0]
    expected, answer = json.loads(documented.replace(", ...", "")), served.run(EMBEDDED)
    assert answer.keys() == expected.keys()
    assert answer["usage"] == expected["usage"]
    assert answer["mes"].keys() == expected["mes"].keys()
    for name in ("timings", "provenance"):
        assert answer["mes"][name].keys() == expected["mes"][name].keys()


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
