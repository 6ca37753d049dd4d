"""`DELETE /v1/models/{model_id}`, over a fake runtime."""

from __future__ import annotations

import time

from mes.errors import RuntimeUnavailable
from mes.scheduling.registry import LoadFailure
from tests.api.conftest import KEY

HEADERS = {"X-API-Key": KEY}
MODEL = "smollm2:135m"
PATH = f"/v1/models/{MODEL}"


def code(response):
    return response.status_code, response.get_json().get("code")


def is_on_disk(runtime):
    return any(model.name == MODEL for model in runtime.on_disk)


def test_a_loaded_model_is_unloaded_and_then_deleted(client, ask, runtime):
    assert ask().status_code == 200
    response = client.delete(PATH, headers=HEADERS)
    assert (response.status_code, response.get_json()["message"]) == (200, f"{MODEL} is deleted")
    assert runtime.unloads == [MODEL]  # FakeRuntime.delete checks the order
    assert not is_on_disk(runtime)


def test_a_model_that_is_not_in_memory_is_deleted(client, runtime):
    assert client.delete(PATH, headers=HEADERS).status_code == 200
    assert runtime.unloads == []
    assert not is_on_disk(runtime)


def test_a_model_that_is_not_pulled_or_not_known_is_not_found(client):
    missing = client.delete("/v1/models/absent:1b", headers=HEADERS)
    assert code(missing) == (404, "model_not_pulled")
    assert code(client.delete("/v1/models/nope", headers=HEADERS)) == (404, "model_not_found")


def test_a_model_in_use_is_not_deleted(app, client, ask, runtime):
    refused = []

    def answer(prompt):
        refused.append(client.delete(PATH, headers=HEADERS))
        return "Paris"

    runtime.answers = answer
    assert ask().status_code == 200
    assert code(refused[0]) == (409, "model_busy")
    assert "try again when its requests (1) have ended" in refused[0].get_json()["detail"]
    assert is_on_disk(runtime)
    assert runtime.unloads == []


def test_no_request_loads_a_model_while_it_is_deleted(app, ask, runtime):
    refused = []
    runtime.deleting = lambda name: refused.append(ask())
    assert app.test_client().delete(PATH, headers=HEADERS).status_code == 200
    assert code(refused[0]) == (503, "model_unavailable")
    assert f"{MODEL} is being deleted" in refused[0].get_json()["detail"]
    assert runtime.loads[MODEL] == 0


def test_only_one_request_deletes_a_model(app, runtime):
    second = []
    runtime.deleting = lambda name: second.append(app.test_client().delete(PATH, headers=HEADERS))
    assert app.test_client().delete(PATH, headers=HEADERS).status_code == 200
    assert code(second[0]) == (409, "model_busy")
    assert app.extensions["mes"].coordinator.read().load_failures == {}


def test_a_cooldown_goes_on_after_a_failed_deletion(app, runtime):
    coordinator = app.extensions["mes"].coordinator
    cooldown = LoadFailure(2, time.monotonic() + 60, "out of memory")
    with coordinator.transaction() as transaction:
        transaction.state.load_failures[MODEL] = cooldown
    runtime.on_disk = []
    assert app.test_client().delete(PATH, headers=HEADERS).status_code == 404
    assert coordinator.read().load_failures == {MODEL: cooldown}


def test_after_a_failed_deletion_the_model_serves_again(client, ask, runtime):
    def fail(name):
        raise RuntimeUnavailable("it does not answer")

    runtime.deleting = fail
    assert code(client.delete(PATH, headers=HEADERS)) == (503, "runtime_unavailable")
    assert ask().status_code == 200
