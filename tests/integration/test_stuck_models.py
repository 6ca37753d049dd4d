"""Models that are deleted, replaced or copied while they are loaded, and victims that do not go."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest
import requests

from tests.integration.helpers import asked, held, infer, registry
from tests.support.process import wait_until

FIRST, SECOND, THIRD, COPY = "mistral:7b", "phi3:mini", "gemma:2b", "copy:latest"
MODELS = {model: {"max_concurrent": 2, "timeout": 30} for model in (FIRST, SECOND, THIRD, COPY)}
ON_DISK = [FIRST, SECOND, THIRD]


@pytest.fixture(scope="module")
def service(start):
    return start(models=MODELS, MAX_LOADED_MODELS=2, UNLOAD_TIMEOUT=1, COOLDOWN=1, SWAP_PATIENCE=0)


@pytest.fixture(autouse=True)
def _at_rest(service, runtime):
    yield
    runtime.control(pulled=ON_DISK, unload_ignored=False, models={FIRST: {}})
    runtime.control(load_seconds=0.02, first_token_ms=0)
    runtime.control(drop=[*ON_DISK, COPY])
    wait_until(lambda: not registry(service)["stuck"] and not registry(service)["registry"])
    wait_until(lambda: service.get("/ready").status_code == 200)
    assert service.log_lines("internal_error") == []
    runtime.reset()


def delete(runtime, model):
    requests.delete(f"{runtime.url}/api/delete", json={"model": model}).raise_for_status()


def copy(runtime, source, destination):
    body = {"source": source, "destination": destination}
    requests.post(f"{runtime.url}/api/copy", json=body).raise_for_status()


def stuck(service):
    return sorted((each["model"], each["cause"]) for each in registry(service)["stuck"].values())


def status_of(service, model):
    models = service.get("/v1/models").json()["models"]
    return next(each["status"] for each in models if each["id"] == model)


def test_a_deleted_model_keeps_its_place_and_the_others_serve_in_the_rest(service, runtime):
    assert asked(service, FIRST).status == 200
    delete(runtime, FIRST)
    wait_until(lambda: status_of(service, FIRST) == "not_pulled")
    wait_until(lambda: stuck(service) == [(FIRST, "deleted")])
    assert asked(service, FIRST).code == "model_not_pulled"
    assert [asked(service, model).status for model in (SECOND, THIRD, SECOND)] == [200] * 3
    assert runtime.stats()["peak_loaded"] == 2
    assert service.get("/ready").status_code == 200


def test_where_no_place_is_left_requests_are_refused_with_the_cause(service, runtime):
    for model in (FIRST, SECOND):
        assert asked(service, model).status == 200
        delete(runtime, model)
    wait_until(lambda: len(stuck(service)) == 2)
    refused = asked(service, THIRD)
    assert (refused.status, refused.code) == (503, "model_unavailable")
    assert FIRST in refused.json()["detail"]
    assert "restart the runtime" in refused.json()["detail"]
    ready = service.get("/ready")
    assert (ready.status_code, FIRST in ready.json()["memory"]) == (503, True)
    public = requests.get(f"http://127.0.0.1:{service.port}/ready")
    assert (public.status_code, FIRST in public.text) == (503, False)
    shown = service.get("/v1/status").json()["stuck_models"]
    assert sorted(each["model"] for each in shown) == [FIRST, SECOND]
    runtime.control(drop=[FIRST])
    wait_until(lambda: asked(service, THIRD).status == 200)
    assert service.get("/ready").status_code == 200


def test_a_deleted_model_serves_again_once_it_is_pulled_again(service, runtime):
    assert asked(service, FIRST).status == 200
    delete(runtime, FIRST)
    wait_until(lambda: stuck(service) == [(FIRST, "deleted")])
    runtime.control(pulled=ON_DISK)
    wait_until(lambda: asked(service, FIRST).status == 200)
    assert runtime.model(FIRST)["loads"] == 1
    assert stuck(service) == []


def test_a_model_that_is_replaced_while_idle_is_loaded_as_another(service, runtime):
    before = asked(service, FIRST).json()["provenance"]["model_digest"]
    runtime.control(replaced=[FIRST])
    wait_until(lambda: stuck(service) == [(FIRST, "replaced")])
    answer = asked(service, FIRST).json()
    assert answer["provenance"]["model_digest"] not in (before, None)
    assert answer["timings"]["load_ms"] > 0
    assert [line["model"] for line in service.log_lines("model_replaced")] == [FIRST]
    assert asked(service, SECOND).status == 200
    assert runtime.stats()["peak_loaded"] == 2


def test_a_victim_that_does_not_go_is_named_and_another_one_goes(service, runtime):
    for model in (FIRST, SECOND):
        assert asked(service, model).status == 200
    runtime.control(models={FIRST: {"unload_ignored": True}})
    assert asked(service, THIRD).status == 200
    assert asked(service, FIRST).status == 200
    shown = service.get("/v1/status").json()["stuck_models"]
    assert [(each["model"], each["cause"]) for each in shown] == [(FIRST, "not_unloaded")]
    assert asked(service, SECOND).seconds < 1
    assert asked(service, THIRD).seconds < 1
    runtime.control(models={FIRST: {}})
    wait_until(lambda: service.get("/v1/status").json()["stuck_models"] == [])
    assert runtime.stats()["peak_loaded"] == 2


def test_where_no_victim_goes_requests_are_refused_at_once(service, runtime):
    for model in (FIRST, SECOND):
        assert asked(service, model).status == 200
    runtime.control(unload_ignored=True)
    assert asked(service, THIRD).status == 503
    refused = asked(service, THIRD)
    assert (refused.code, refused.seconds < 1) == ("model_unavailable", True)
    assert f"does not unload {FIRST}" in refused.json()["detail"]
    assert [asked(service, model).status for model in (FIRST, SECOND)] == [200, 200]
    runtime.control(unload_ignored=False)
    wait_until(lambda: asked(service, THIRD).status == 200)


@contextmanager
def in_constant_use(service, *models):
    """Have two requests open for each of the models at any time."""
    done = threading.Event()

    def ask_on(model):
        while not done.is_set():
            asked(service, model)

    threads = [threading.Thread(target=ask_on, args=(model,)) for model in models * 2]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_victims_in_constant_use_are_tried_again(service, runtime):
    for model in (FIRST, SECOND):
        assert asked(service, model).status == 200
    runtime.control(unload_ignored=True)
    assert asked(service, THIRD).status == 503
    runtime.control(first_token_ms=200)
    with in_constant_use(service, FIRST, SECOND):
        wait_until(lambda: held(service, "permits") == 4)
        runtime.control(unload_ignored=False)
        wait_until(lambda: asked(service, THIRD).status == 200)


def test_copies_share_a_place_and_are_ready_together(service, runtime):
    assert asked(service, FIRST).status == 200
    missing_before = service.log_lines("model_missing")
    copy(runtime, FIRST, COPY)
    wait_until(lambda: status_of(service, COPY) == "ready")
    for model in (COPY, FIRST, SECOND, COPY, SECOND, FIRST):
        answer = asked(service, model)
        assert answer.status == 200
    assert (runtime.model(FIRST)["loads"], runtime.model(SECOND)["loads"]) == (1, 1)
    assert runtime.stats()["unloads"] == 0
    assert service.post(f"/v1/models/{COPY}/unload").status_code == 200
    assert status_of(service, FIRST) == "available"
    assert service.log_lines("model_missing") == missing_before


def test_a_copy_outlives_the_name_that_was_loaded(service, runtime):
    copy(runtime, FIRST, COPY)
    wait_until(lambda: status_of(service, COPY) == "available")
    assert asked(service, FIRST).status == 200
    delete(runtime, FIRST)
    wait_until(lambda: status_of(service, FIRST) == "not_pulled")
    assert asked(service, COPY).status == 200
    wait_until(lambda: status_of(service, COPY) == "ready")
    assert stuck(service) == []
    assert runtime.stats()["loads"] == 1
    assert service.post(f"/v1/models/{COPY}/unload").status_code == 200


def test_an_update_just_before_a_request_is_known_with_its_answer(service, runtime):
    before = asked(service, FIRST).json()["provenance"]["model_digest"]
    runtime.control(load_seconds=0.5)
    for _ in range(3):
        # Whether the leader or this request is the first to notice, is a matter of luck.
        runtime.control(replaced=[FIRST], drop=[SECOND])
        answers = [asked(service, FIRST).json() for _ in range(2)]
        listed = requests.get(f"{runtime.url}/api/tags").json()["models"]
        digest = next("sha256:" + x["digest"] for x in listed if x["name"] == FIRST)
        assert [each["provenance"]["model_digest"] for each in answers] == [digest] * 2
        assert digest != before
        assert answers[0]["timings"]["load_ms"] >= 400
        assert answers[0]["timings"]["time_to_first_token_ms"] < 400
        assert answers[0]["timings"]["cold_start"] is True
        assert answers[1]["timings"]["cold_start"] is False
        before = digest
        wait_until(lambda: (FIRST, "replaced") in stuck(service))
        runtime.control(drop=[FIRST])
        wait_until(lambda: not stuck(service) and not registry(service)["registry"])
        assert asked(service, FIRST).status == 200


def test_an_update_during_a_generation_leaves_its_version_unknown(service, runtime):
    assert asked(service, FIRST).status == 200
    runtime.control(first_token_ms=2500)
    running = infer(service, FIRST)
    wait_until(lambda: runtime.model(FIRST)["current"] == 1)
    runtime.control(replaced=[FIRST])
    wait_until(lambda: stuck(service) == [(FIRST, "replaced")])
    provenance = running.answer().json()["provenance"]
    assert (provenance["model_digest"], len(provenance["warnings"])) == (None, 1)
    assert FIRST in provenance["warnings"][0]


def test_after_an_update_that_a_request_noticed_first_the_limit_holds_again(service, runtime):
    for model in (FIRST, SECOND):
        assert asked(service, model).status == 200
    runtime.control(replaced=[FIRST])
    assert asked(service, FIRST).status == 200
    wait_until(lambda: stuck(service) == [(FIRST, "replaced")])
    wait_until(lambda: [each["model"] for each in registry(service)["registry"]] == [FIRST])
    wait_until(lambda: len(runtime.stats()["loaded"]) == 2)
