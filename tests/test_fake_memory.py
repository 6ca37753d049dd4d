"""The fake runtime: models that are deleted, copied and updated while they are loaded."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from tests.support.fake_ollama.disk import Disk
from tests.support.fake_ollama.machine import Machine
from tests.support.recorded import exchanges

RECORDED = exchanges("ollama-transcripts-2")
ORDER = list(RECORDED)


def cases(first: str, last: str) -> list[str]:
    return ORDER[ORDER.index(first) : ORDER.index(last) + 1]


def recorded_lines(case: str) -> list[Any]:
    return [json.loads(each["line"]) for each in RECORDED[case]["response"]["lines"]]


def asked(fake: Any, case: str) -> requests.Response:
    request = RECORDED[case]["request"]
    return requests.request(request["method"], fake.url + request["path"], json=request["body"])


def runners(answer: Any) -> list[tuple[str, str]]:
    """Return the names of the models in memory; of each digest only whether it is the first."""
    digests: dict[str, str] = {}
    return [
        (each["name"], digests.setdefault(each["digest"], f"version {len(digests)}"))
        for each in answer["models"]
    ]


@pytest.fixture
def fake(fake_ollama):
    fake_ollama.control(pulled=["smollm2:135m", "gemma3:270m", "m-a"])
    return fake_ollama


def test_a_model_that_is_deleted_while_loaded_stays_in_memory_out_of_reach(fake):
    requests.post(f"{fake.url}/api/generate", json={"model": "gemma3:270m", "keep_alive": -1})
    for case in cases("copy-for-delete", "ps-after-unload-of-deleted"):
        answer, recorded = asked(fake, case), RECORDED[case]["response"]
        assert answer.status_code == recorded["status"], case
        if "/api/ps" in RECORDED[case]["request"]["path"]:
            assert runners(answer.json()) == runners(recorded_lines(case)[0]), case
        if answer.status_code == 404:
            assert answer.json() == recorded_lines(case)[0], case


def test_a_model_that_is_updated_while_loaded_is_in_memory_twice(fake):
    for case in cases("update-loaded-1-load", "update-loaded-8-ps"):
        if "/api/create" in RECORDED[case]["request"]["path"]:
            fake.control(replaced=["m-a"])
            continue
        answer = asked(fake, case)
        assert answer.status_code == RECORDED[case]["response"]["status"], case
        if "/api/ps" in RECORDED[case]["request"]["path"]:
            assert runners(answer.json()) == runners(recorded_lines(case)[0]), case


def test_a_copy_runs_in_the_model_that_is_loaded_and_is_not_listed(fake):
    body = {"source": "smollm2:135m", "destination": "copy"}
    requests.post(f"{fake.url}/api/copy", json=body)
    for name in ("smollm2:135m", "copy"):
        requests.post(f"{fake.url}/api/generate", json={"model": name})
    listed = requests.get(f"{fake.url}/api/ps").json()["models"]
    assert [each["name"] for each in listed] == ["smollm2:135m"]
    requests.post(f"{fake.url}/api/generate", json={"model": "copy", "keep_alive": 0})
    assert requests.get(f"{fake.url}/api/ps").json() == {"models": []}


def test_a_deleted_model_keeps_its_counters_for_when_it_is_pulled_again():
    disk = Disk(["m-a"])
    disk.named("m-a")[0].counters.loads = 3
    disk.delete("m-a")
    assert [each.loads for each in disk.counters()] == [3]
    disk.add("m-a")
    assert [each.loads for each in disk.counters()] == [3]
    assert disk.named("m-a")[0].counters.loads == 3


def in_memory(*names):
    machine = Machine(list(names))
    for name in names:
        put_into_memory(machine.find(name))
    machine.reset()
    return machine


def put_into_memory(model):
    model.state, model.keep_alive_seconds = "loaded", -1


def test_a_replaced_model_is_counted_when_its_clients_can_know_of_it():
    machine = in_memory("m-a", "m-b")
    machine.control({"replaced": ["m-a"]})
    put_into_memory(machine.find("m-a"))
    machine.behaviour.unnoticed_seconds = 60
    machine.reset()
    assert machine.stats()["peak_loaded"] == 2
    machine.behaviour.unnoticed_seconds = 0
    machine.reset()
    assert machine.stats()["peak_loaded"] == 3


def test_models_that_no_name_leads_to_leave_memory_on_demand():
    machine = in_memory("m-a", "m-b")
    machine.control({"pulled": ["m-b"]})
    assert machine.stats()["orphans"] == ["m-a"]
    machine.control({"drop_orphans": True})
    stats = machine.stats()
    assert (stats["loaded"], stats["orphans"]) == (["m-b"], [])
