"""The program of the quickstart for Open Bench, against a service that refuses requests."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.integration.helpers import restore_defaults
from tests.support.process import ROOT
from tests.support.service import KEY, FakeOllama, Service

GUIDE = (ROOT / "docs/quickstart-open-bench.md").read_text()
MODELS = {f"{name}:1b": {"max_concurrent": 1, "max_queue": 1} for name in "ab"}
VALID = '{"name": "John", "age": 25}'


@pytest.fixture(scope="module")
def runtime() -> Iterator[FakeOllama]:
    with FakeOllama(f"--models={','.join(MODELS)}") as fake:
        yield fake


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, runtime: FakeOllama) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    with Service(folder, ollama_url=runtime.url, models=MODELS, WEB_CONCURRENCY=1) as service:
        service.wait_until_ready()
        yield service


@pytest.fixture
def program(
    service: Service, runtime: FakeOllama, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """Return the documented program, for three prompts to each model of the service."""
    restore_defaults(runtime)
    runtime.control(reply=VALID)
    monkeypatch.chdir(tmp_path)
    program = ModuleType("open_bench")
    [text] = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    exec(compile(text, "docs/quickstart-open-bench.md", "exec"), program.__dict__)
    prompts = {f"p{n}": f"Who? {n}" for n in range(3)}
    program.__dict__.update(URL=service.url, KEY=KEY, MODELS=[*MODELS], PROMPTS=prompts)
    return program


def lines(program: ModuleType) -> list[dict[str, Any]]:
    """Return the lines of the file with the results."""
    return [json.loads(line) for line in program.RESULTS.read_text().splitlines()]


def refused(service: Service, code: str) -> int:
    return sum(line.get("code") == code for line in service.log_lines("request"))


def test_each_prompt_has_one_verdict_although_requests_were_refused(program, service, runtime):
    runtime.control(ms_per_token=10)
    program.main()

    assert Counter((line["model_id"], line["prompt_id"]) for line in lines(program)) == Counter(
        (model, prompt) for model in MODELS for prompt in program.PROMPTS
    )
    assert {line["structured"]["verdict"] for line in lines(program)} == {"valid"}
    assert all(line["provenance"]["model_digest"] for line in lines(program))
    assert refused(service, "queue_full") > 0


def test_an_answer_that_breaks_the_schema_is_a_result_and_a_fault_of_the_runtime_is_not(
    program, runtime, capsys
):
    runtime.control(reply='{"name": "John"}')
    runtime.control(faults=[{"kind": "cut", "stage": "generate", "model": "a:1b", "after": 1}])
    program.main()
    assert "'schema_violation': 5, 'generation_aborted': 1" in _sorted(capsys.readouterr().out)

    runtime.control(reply=VALID)
    program.main()
    assert "'schema_violation': 5, 'valid': 1" in _sorted(capsys.readouterr().out)
    assert len(lines(program)) == 7, "only the prompt without an answer was sent again"


def _sorted(printed: str) -> str:
    """Return the printed counts with the largest first."""
    counts = Counter(json.loads(printed.replace("'", '"')))
    return str(dict(counts.most_common()))


def test_requests_are_repeated_while_the_service_cannot_be_reached(program, monkeypatch):
    sent, post = [], program.requests.post

    def unreliable(url: str, **more: Any) -> Any:
        sent.append(url)
        if len(sent) == 1:
            raise program.requests.ConnectionError
        return post(url, **more)

    monkeypatch.setattr(program.requests, "post", unreliable)
    monkeypatch.setattr(program.time, "sleep", lambda seconds: None)
    assert program.run(("a:1b", "p0"))["status"] == 200
    assert len(sent) == 2


def test_the_fields_of_the_original_interface_are_in_the_responses(service, runtime):
    runtime.control(reply="{}")  # breaks the schema, so that the response has an error
    chapter = GUIDE.partition("## Fields of the original")[2]
    rows = re.findall(r"^\| (.*?) \| (.*) \|$", chapter, re.MULTILINE)[1:]
    fields = {name: set(re.findall(r"`([\w.]+)`", text)) for name, text in rows}
    model, prompt, limits = "a:1b", "Who?", {"temperature": 0, "max_tokens": 9}
    request = {"model_id": model, "prompt": prompt, "system_prompt": "Be brief.", **limits}
    answer = service.post(
        "/v1/inference", {**request, "json_schema": {"required": ["name"]}}
    ).json()

    assert fields.pop("`POST /v1/inference`") == {*request, "json_schema"}
    responses = {
        "its response": {**answer, "usage.total_tokens": answer["usage"]["total_tokens"]},
        "`GET /v1/models`": {**(models := service.get("/v1/models").json()), **models["models"][0]},
        "`GET /v1/status`": service.get("/v1/status").json(),
        "`POST /v1/models/{id}/load`, `/unload`": service.post(f"/v1/models/{model}/load").json(),
        "`GET /health`": service.get("/health").json(),
        "an error": service.infer("none:1b").json(),
    }
    assert fields.keys() == responses.keys()
    assert [name for name in fields if not fields[name] <= responses[name].keys()] == []
