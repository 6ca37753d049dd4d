"""Catalog edits while the service runs, log lines, and the cost of waiting requests."""

from __future__ import annotations

import os
import time

import pytest

from tests.integration.helpers import (
    asked,
    burst,
    infer,
    wait_until_at_rest,
    wait_until_held,
    wakeups,
)
from tests.support.process import wait_until
from tests.support.service import KEY, catalog

MODEL, ADDED = "mistral:7b", "phi3:mini"
CATALOG = {MODEL: {"max_concurrent": 1, "max_queue": 250, "timeout": 600}}

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def service(start):
    return start(models=CATALOG)


def replace(path, content):
    """Replace the file at once, as editors do."""
    draft = path.with_suffix(".draft")
    draft.write_bytes(content)
    os.replace(draft, path)


def ids(service):
    return {model["id"] for model in service.get("/v1/models").json()["models"]}


def catalog_check(service):
    return service.get("/ready").json()["catalog"]


def test_an_edit_of_the_catalog_shows_without_a_restart(service):
    assert asked(service, ADDED).status == 404
    catalog(service.models_path, **CATALOG, **{ADDED: {}})
    wait_until(lambda: all(ids(service) == {MODEL, ADDED} for _ in range(20)))
    assert asked(service, ADDED).status == 200
    catalog(service.models_path, **CATALOG)
    wait_until(lambda: all(ids(service) == {MODEL} for _ in range(20)))


def test_a_broken_edit_is_named_and_the_last_good_catalog_stays(service):
    replace(service.models_path, b'{"models": {"mistral:7b": {"max_concurent": 1}}}')
    wait_until(lambda: all("max_concurent" in catalog_check(service) for _ in range(20)))
    assert service.get("/ready").status_code == 503
    assert ids(service) == {MODEL}
    assert asked(service, MODEL).status == 200
    catalog(service.models_path, **CATALOG)
    service.wait_until_ready()


def test_a_worker_that_starts_after_a_broken_edit_has_the_last_good_catalog(service):
    replace(service.models_path, b"{")
    for victim in service.worker_pids():
        service.kill_worker(victim)
        wait_until(lambda pid=victim: pid not in service.worker_pids())
    wait_until(lambda: len(service.worker_pids()) == 4)
    assert [asked(service, MODEL).status for _ in range(20)] == [200] * 20
    assert "is not JSON" in catalog_check(service)
    catalog(service.models_path, **CATALOG)
    service.wait_until_ready()
    assert service.process.poll() is None


def test_each_request_is_one_line_of_json_without_prompt_answer_or_key(service, runtime):
    wait_until_at_rest(service)
    lines_before = len(service.log_lines("request"))
    runtime.control(reply="the-secret-answer")
    for _ in range(5):
        asked(service, MODEL, "the-secret-prompt", system_prompt="the-secret-system")
    asked(service, "unknown:1b", "the-secret-prompt")
    asked(service, MODEL, "the-secret-prompt", temperature=7)
    infer(service, MODEL, "the-secret-prompt", json_schema={"type": "the-secret-type"}).answer()
    lines = wait_until(
        lambda: len(found := service.log_lines("request")[lines_before:]) == 8 and found
    )
    assert [line["status"] for line in lines] == [200] * 5 + [404, 422, 422]
    assert len({line["request_id"] for line in lines}) == 8
    assert lines[0]["usage"]["completion_tokens"] > 0
    assert service.other_lines() == []
    assert "the-secret" not in service.text()
    assert KEY not in service.text()


def test_two_hundred_waiting_requests_sleep(service, runtime):
    assert asked(service, MODEL).status == 200
    runtime.control(first_token_ms=600_000)
    calls = burst(service, MODEL, 201)
    wait_until_held(service, permits=1, tickets=200)
    workers = service.worker_pids()
    began, before = time.monotonic(), wakeups(workers)
    time.sleep(5)
    per_second = (wakeups(workers) - before) / (time.monotonic() - began)
    for call in calls:
        call.hang_up()
    wait_until_at_rest(service)
    # Counted, because CPU time is not exact here: 200 requests that poll every 100 ms wake up
    # 2,000 times a second, those that wait for their turn about 100 times.
    assert per_second < 600
