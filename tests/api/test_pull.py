"""`POST /v1/models/{model_id}/pull`, over a fake runtime."""

from __future__ import annotations

import json

import pytest

from mes import errors
from tests.api.conftest import KEY
from tests.fakes import eventually

HEADERS = {"X-API-Key": KEY, "X-Request-ID": "mine"}


def lines(response):
    return [json.loads(each) for each in response.get_data().splitlines()]


def status_of(client, model_id):
    models = client.get("/v1/models", headers=HEADERS).get_json()["models"]
    return next(model["status"] for model in models if model["id"] == model_id)


def test_a_pull_streams_progress_and_ends_with_the_result(client):
    response = client.post("/v1/models/Absent:1b/pull", headers=HEADERS)
    assert response.status_code == 200
    assert response.mimetype == "application/x-ndjson"
    assert lines(response) == [
        {
            "type": "progress",
            "status": "pulling manifest",
            "completed_bytes": None,
            "total_bytes": None,
        },
        {
            "type": "progress",
            "status": "pulling 000000000000",
            "completed_bytes": 5,
            "total_bytes": 10,
        },
        {
            "type": "result",
            "success": True,
            "message": "absent:1b is pulled",
            "model_id": "absent:1b",
        },
    ]


def test_a_pulled_model_is_available_within_seconds(client):
    assert status_of(client, "absent:1b") == "not_pulled"
    lines(client.post("/v1/models/absent:1b/pull", headers=HEADERS))
    eventually(lambda: status_of(client, "absent:1b") == "available", seconds=10)


def test_an_error_during_a_pull_is_a_problem_in_the_last_line(client, runtime):
    runtime.pull_error = errors.PullFailed("digest mismatch")
    *_, last = lines(client.post("/v1/models/absent:1b/pull", headers=HEADERS))
    expected = {"type": "error", "status": 502, "code": "pull_failed", "detail": "digest mismatch"}
    assert last | expected == {**last, "request_id": "mine", "success": False}


@pytest.mark.parametrize("model_id", ["unknown:1b", "off:1b"])
def test_only_enabled_models_of_the_catalog_can_be_pulled(client, model_id):
    response = client.post(f"/v1/models/{model_id}/pull", headers=HEADERS)
    assert response.status_code == 404
    assert response.get_json()["code"] == "model_not_found"


def test_a_pull_needs_a_key(client):
    assert client.post("/v1/models/absent:1b/pull").status_code == 401


def test_an_error_before_the_first_line_of_a_pull_has_its_status(client, runtime):
    runtime.down = errors.RuntimeUnavailable("the runtime cannot be reached")
    response = client.post("/v1/models/absent:1b/pull", headers=HEADERS)
    assert response.status_code == 503
    assert response.mimetype == "application/problem+json"
    assert response.headers["Retry-After"] == "2"


def test_every_pull_releases_its_wait_slot(client, app, runtime):
    wait_slots = app.extensions["mes"].wait_slots
    free = wait_slots._value
    for error in (None, errors.PullFailed("digest mismatch"), errors.ClientDisconnected("gone")):
        runtime.pull_error = error
        lines(client.post("/v1/models/absent:1b/pull", headers=HEADERS))
    unread = client.post("/v1/models/absent:1b/pull", headers=HEADERS)
    assert wait_slots._value == free - 1
    unread.close()
    assert wait_slots._value == free


def test_without_a_free_wait_slot_a_pull_is_refused(client, app):
    wait_slots = app.extensions["mes"].wait_slots
    taken = 0
    while wait_slots.acquire(blocking=False):
        taken += 1
    response = client.post("/v1/models/absent:1b/pull", headers=HEADERS)
    assert (response.status_code, response.get_json()["code"]) == (503, "queue_full")
    wait_slots.release(taken)
