"""Metrics are sums over all workers, also when workers are killed or replaced."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.helpers import (
    LOST,
    answers,
    asked,
    burst,
    crowd,
    held,
    living,
    wait_until_at_rest,
    wait_until_held,
)
from tests.support.process import wait_until

MODEL = "mistral:7b"
WORKERS = 3
KILLS = int(os.environ.get("MES_TEST_KILLS", 6))

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture
def service(start):
    # A new service for each test, so that its counters start at zero.
    models = {MODEL: {"max_concurrent": 3, "max_queue": 60, "timeout": 600}}
    service = start(models=models, WEB_CONCURRENCY=WORKERS)
    wait_until(lambda: len(living(service)) == WORKERS)
    return service


def scraped(service, name, **labels):
    """Return the sum of the samples of this name that have these labels."""
    families = text_string_to_metric_families(service.get("/metrics").text)
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def inferences(service, status):
    name, route = "http_server_request_duration_seconds_count", "/v1/inference"
    return scraped(service, name, http_route=route, http_response_status_code=status)


def wait_for_more(seen):
    enough = len(seen) + 20
    wait_until(lambda: len(seen) > enough)


def reload_workers(service):
    before = set(service.worker_pids())
    os.kill(service.process.pid, signal.SIGHUP)
    wait_until(
        lambda: not before & set(service.worker_pids()) and len(living(service)) == WORKERS,
        seconds=60,
        why="all workers are new",
    )


def test_totals_are_what_clients_counted_through_kills_and_reloads(service, runtime):
    runtime.control(tokens=5, ms_per_token=5)
    rng = random.Random(KILLS)
    with crowd(8, lambda _: asked(service, MODEL)) as seen:
        for number in range(KILLS):
            wait_for_more(seen)
            service.kill_worker(rng.choice(sorted(living(service))))
            wait_until(lambda: len(living(service)) == WORKERS)
            if number % 3 == 0:
                reload_workers(service)
    received = Counter(answer.status for answer in seen)
    assert set(received) <= {200, LOST}
    # A worker that is killed between counting and sending has counted a request that its client
    # sees as lost.
    succeeded, lost = received[200], received[LOST]
    assert succeeded <= inferences(service, "200") <= succeeded + lost
    named = {"gen_ai_request_model": MODEL, "gen_ai_token_type": "output"}
    tokens = scraped(service, "gen_ai_client_token_usage_sum", **named)
    assert tokens == 5 * inferences(service, "200")
    assert len(list(service.state_dir.glob("metrics-*"))) == 1


def test_totals_survive_every_worker(service):
    assert [asked(service, MODEL).status for _ in range(20)] == [200] * 20
    assert [asked(service, "unheard-of:1b").status for _ in range(5)] == [404] * 5
    for pid in service.worker_pids():
        service.kill_worker(pid)
    wait_until(lambda: len(living(service)) == WORKERS)
    reload_workers(service)
    assert (inferences(service, "200"), inferences(service, "404")) == (20, 5)
    assert scraped(service, "mes_errors_total", code="model_not_found", model="other") == 5
    assert scraped(service, "mes_model_loads_total", model=MODEL) == 1
    assert scraped(service, "mes_worker_processes") == WORKERS


def test_metrics_and_log_agree(service):
    for model in (MODEL, MODEL, "unheard-of:1b"):
        asked(service, model, json_schema={"type": "object"})
    service.get("/v1/nothing")
    service.get("/v1/status", headers={"Authorization": "Bearer wrong"})
    page = service.get("/metrics").text
    # The line of the scrape itself is written after its page was made.
    lines = service.log_lines("request")[:-1]
    counted = Counter()
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == "http_server_request_duration_seconds_count":
                counted[int(sample.labels["http_response_status_code"])] += int(sample.value)
            elif sample.name == "mes_errors_total" and sample.value:
                counted[sample.labels["code"]] += int(sample.value)
    logged = Counter(line["status"] for line in lines)
    logged.update(line["code"] for line in lines if line["code"])
    assert counted == logged


def test_a_scrape_covers_all_live_workers_and_no_dead_one(service, runtime):
    runtime.control(first_token_ms=60_000)
    calls = burst(service, MODEL, 12)
    wait_until_held(service, 3, 9)
    assert scraped(service, "mes_requests_in_flight", model=MODEL) == 3
    assert scraped(service, "mes_requests_queued", model=MODEL) == 9
    assert scraped(service, "mes_queue_oldest_wait_seconds", model=MODEL) > 0
    for pid in service.worker_pids():
        service.kill_worker(pid)
    assert {answer.status for answer in answers(calls)} == {LOST}
    # Not before: a worker that is killed last would get the permits of the first, and answer.
    runtime.control(first_token_ms=0)
    wait_until(lambda: len(living(service)) == WORKERS)
    wait_until(lambda: held(service, "permits") == 0, why="the dead workers are released")
    wait_until_at_rest(service)
    assert scraped(service, "mes_requests_in_flight") == 0
    assert scraped(service, "mes_requests_queued") == 0
    assert inferences(service, "200") == 0


def test_a_runtime_that_ends_shows_in_the_metrics(service, runtime):
    assert scraped(service, "mes_runtime_up") == 1
    runtime.kill()
    wait_until(lambda: scraped(service, "mes_runtime_up") == 0)
    assert scraped(service, "mes_model_loaded") == 0
