"""Embeddings under gunicorn share one scheduler with generations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.helpers import (
    Answer,
    Call,
    answers,
    infer,
    wait_until_at_rest,
    wait_until_held,
)
from tests.support.process import wait_until
from tests.support.service import FakeOllama, Service

EMBEDDER, CHAT = "nomic-embed-text", "mistral:7b"
SHORT_TIMEOUT, SHORT_QUEUE = "short-timeout-embed", "short-queue-embed"
MODELS = (EMBEDDER, CHAT, SHORT_TIMEOUT, SHORT_QUEUE)

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def runtime() -> Iterator[FakeOllama]:
    with FakeOllama("--models", ",".join(MODELS)) as fake:
        yield fake


@pytest.fixture(scope="module")
def service(start) -> Service:
    models = {
        EMBEDDER: {"max_concurrent": 2, "max_queue": 60, "context_window": 512},
        SHORT_TIMEOUT: {"timeout": 0.5},
        SHORT_QUEUE: {"max_concurrent": 1, "max_queue": 1},
        CHAT: {"max_concurrent": 2, "max_queue": 60},
    }
    return start(models=models, MAX_LOADED_MODELS=1)


@pytest.fixture
def unload(service):
    """Return a function that unloads all models."""

    def unload_all():
        for model in MODELS:
            service.post(f"/v1/models/{model}/unload").raise_for_status()

    return unload_all


@pytest.fixture
def cold(unload):
    unload()


def embed(service: Service, text: Any = "Hello", model: str = EMBEDDER) -> Call:
    return Call(service, "/v1/embeddings", {"model": model, "input": text})


def error_of(answer: Answer) -> dict[str, Any]:
    error: dict[str, Any] = answer.json()["error"]
    return error


@pytest.mark.usefixtures("cold")
def test_a_model_that_embeds_makes_room_and_has_room_made_for_it(service, runtime):
    assert infer(service, CHAT).answer().status == 200
    embedded = embed(service).answer().json()
    assert embedded["mes"]["timings"]["cold_start"] is True
    assert service.get("/v1/status").json()["models_loaded"] == [EMBEDDER]
    assert infer(service, CHAT).answer().status == 200
    assert service.get("/v1/status").json()["models_loaded"] == [CHAT]
    assert runtime.model(EMBEDDER)["unloads"] == 1
    assert runtime.stats()["peak_loaded"] == 1


@pytest.mark.usefixtures("cold")
def test_forty_at_once_for_a_cold_model_are_one_load(service, runtime):
    runtime.control(load_seconds=0.5, first_token_ms=10)
    answered = answers([embed(service, f"text {n}") for n in range(40)])
    assert [answer.status for answer in answered] == [200] * 40
    counts = runtime.model(EMBEDDER)
    assert (counts["loads"], counts["reloads"], counts["implicit_loads"]) == (1, 0, 0)
    assert (counts["generations"], counts["peak"]) == (40, 1)
    wait_until_at_rest(service)


def test_requests_beyond_the_slots_of_the_runtime_wait_in_the_queue_of_mes(service, runtime):
    assert embed(service).answer().status == 200
    runtime.control(first_token_ms=300)
    calls = [embed(service), embed(service)]
    waits = [each.json()["mes"]["timings"]["queue_ms"] for each in answers(calls)]
    assert max(waits) >= 200
    (model,) = (m for m in service.get("/v1/status").json()["models"] if m["id"] == EMBEDDER)
    assert (model["max_concurrent"], model["effective_max_concurrent"]) == (2, 1)


@pytest.mark.usefixtures("cold")
def test_embeddings_and_generations_share_the_memory_and_none_is_lost(service, runtime):
    runtime.control(first_token_ms=10)
    calls = [(embed, infer)[n % 2](service, *((), (CHAT,))[n % 2]) for n in range(40)]
    assert {answer.status for answer in answers(calls)} == {200}
    assert runtime.stats()["peak_loaded"] == 1
    assert runtime.stats()["unloaded_while_busy"] == 0
    # They are grouped by model: not one swap for each.
    assert runtime.stats()["loads"] <= 6


def test_a_model_that_embeds_can_be_loaded_by_hand_and_is_not_reloaded(service, runtime):
    assert service.post(f"/v1/models/{EMBEDDER}/load").status_code == 200
    runtime.reset()
    assert embed(service).answer().status == 200
    counts = runtime.model(EMBEDDER)
    assert (counts["loads"], counts["reloads"]) == (0, 0)
    assert counts["options"]["num_ctx"] == 512


def test_a_client_that_hangs_up_cancels_it_and_gives_the_permit_back(service, runtime):
    assert embed(service).answer().status == 200
    runtime.control(first_token_ms=60_000)
    with embed(service):
        wait_until_held(service, permits=1, tickets=0)
    wait_until_at_rest(service)
    wait_until(lambda: runtime.model(EMBEDDER)["cancelled_generations"] == 1)


def test_an_embedding_ends_at_its_deadline(service, runtime):
    runtime.control(first_token_ms=60_000)
    answer = embed(service, model=SHORT_TIMEOUT).answer()
    error = error_of(answer)
    assert (answer.status, error["code"]) == (504, "generation_timeout")
    assert re.fullmatch(
        r"the embedding did not end within \d+(\.\d+)? s \(timeout of the model in the catalog\); "
        "raise it, or send fewer texts",
        error["message"],
    )
    wait_until_at_rest(service)


def test_a_full_queue_refuses_embeddings(service, runtime):
    assert service.post(f"/v1/models/{SHORT_QUEUE}/load").status_code == 200
    runtime.control(first_token_ms=3000)
    answered = answers([embed(service, model=SHORT_QUEUE) for _ in range(10)])
    full = [answer for answer in answered if answer.status == 503]
    assert len(full) >= 6
    assert {error_of(answer)["code"] for answer in full} == {"queue_full"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in full)


def test_a_missing_capability_is_an_error_before_the_model_is_loaded(service, runtime, unload):
    def refused_without_a_load():
        unload()
        runtime.reset()
        no_vectors, no_text = answers([embed(service, model=CHAT), infer(service, EMBEDDER)])
        assert (no_vectors.status, no_text.status) == (400, 422)
        assert "makes no embeddings" in error_of(no_vectors)["message"]
        assert "makes embeddings and no text" in no_text.json()["detail"]
        return runtime.stats()["loads"] == 0

    # Until the service has read the capabilities, the runtime loads the model and refuses.
    wait_until(refused_without_a_load, why="the capabilities are known")


def test_a_text_that_is_too_long_is_refused_and_never_cut(service):
    answer = embed(service, ["short", "word " * 600]).answer()
    assert (answer.status, error_of(answer)["code"]) == (400, "context_length_exceeded")
    expected = "512 tokens; the longest, input 1, has 3000 characters"
    assert expected in error_of(answer)["message"]


def test_thousands_of_texts_come_back_in_their_order(service, runtime):
    texts = [f"text {n}" for n in range(2048)]
    batch = embed(service, texts).answer().json()
    assert [item["index"] for item in batch["data"]] == list(range(2048))
    alone = embed(service, texts[2000]).answer().json()
    assert batch["data"][2000]["embedding"] == alone["data"][0]["embedding"]
    assert batch["usage"]["prompt_tokens"] == 2048 * 4
