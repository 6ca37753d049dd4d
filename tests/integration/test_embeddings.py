"""Embeddings through real gunicorn: one scheduler for all, whatever a model is for."""

from __future__ import annotations

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

EMBEDDER, HASTY, CHAT = "nomic-embed-text", "hasty-embedder", "mistral:7b"

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def runtime() -> Iterator[FakeOllama]:
    with FakeOllama("--models", f"{EMBEDDER},{HASTY},{CHAT}") as fake:
        yield fake


@pytest.fixture(scope="module")
def service(start) -> Service:
    models = {
        EMBEDDER: {"max_concurrent": 2, "max_queue": 60, "context_window": 512},
        HASTY: {"timeout": 0.5, "max_queue": 1},
        CHAT: {"max_concurrent": 2, "max_queue": 60},
    }
    return start(models=models, MAX_LOADED_MODELS=1)


@pytest.fixture
def unload(service):
    """Leaves nothing in memory."""

    def all_of_them():
        for model in (EMBEDDER, HASTY, CHAT):
            service.post(f"/v1/models/{model}/unload").raise_for_status()

    return all_of_them


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
    books = runtime.model(EMBEDDER)
    assert (books["loads"], books["reloads"], books["implicit_loads"]) == (1, 0, 0)
    assert (books["generations"], books["peak"]) == (40, 2)
    wait_until_at_rest(service)


@pytest.mark.usefixtures("cold")
def test_embeddings_and_generations_take_turns_in_memory_and_none_is_lost(service, runtime):
    runtime.control(first_token_ms=10)
    calls = [(embed, infer)[n % 2](service, *((), (CHAT,))[n % 2]) for n in range(40)]
    assert {answer.status for answer in answers(calls)} == {200}
    assert runtime.stats()["peak_loaded"] == 1
    assert runtime.stats()["unloaded_while_busy"] == 0
    # Grouped by their models and not one swap for each.
    assert runtime.stats()["loads"] <= 6


def test_a_model_that_embeds_can_be_loaded_by_hand_and_is_not_reloaded(service, runtime):
    assert service.post(f"/v1/models/{EMBEDDER}/load").status_code == 200
    runtime.reset()
    assert embed(service).answer().status == 200
    books = runtime.model(EMBEDDER)
    assert (books["loads"], books["reloads"]) == (0, 0)
    assert books["options"]["num_ctx"] == 512


def test_a_caller_who_leaves_cancels_it_and_gives_the_permit_back(service, runtime):
    assert embed(service).answer().status == 200
    runtime.control(first_token_ms=60_000)
    with embed(service):
        wait_until_held(service, permits=1, tickets=0)
    wait_until_at_rest(service)
    wait_until(lambda: runtime.model(EMBEDDER)["cancelled_generations"] == 1)


def test_it_ends_at_its_deadline(service, runtime):
    runtime.control(first_token_ms=60_000)
    answer = embed(service, model=HASTY).answer()
    assert (answer.status, error_of(answer)["code"]) == (504, "generation_timeout")
    wait_until_at_rest(service)


def test_the_queue_has_an_end(service, runtime):
    assert service.post(f"/v1/models/{HASTY}/load").status_code == 200
    runtime.control(first_token_ms=400)
    answered = answers([embed(service, model=HASTY) for _ in range(10)])
    full = [answer for answer in answered if answer.status == 503]
    assert len(full) >= 6
    assert {error_of(answer)["code"] for answer in full} == {"queue_full"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in full)


def test_what_a_model_cannot_do_is_told_before_it_is_loaded(service, runtime, unload):
    def told_at_once():
        unload()
        runtime.reset()
        no_vectors, no_text = answers([embed(service, model=CHAT), infer(service, EMBEDDER)])
        assert (no_vectors.status, no_text.status) == (400, 422)
        assert "makes no embeddings" in error_of(no_vectors)["message"]
        assert "makes embeddings and no text" in no_text.json()["detail"]
        return runtime.stats()["loads"] == 0

    # In the first moments of the service the runtime is not asked yet, and says it itself.
    wait_until(told_at_once, why="it is known what the models can do")


def test_a_text_that_is_too_long_is_refused_and_never_cut(service):
    answer = embed(service, ["short", "word " * 600]).answer()
    assert (answer.status, error_of(answer)["code"]) == (400, "prompt_too_long")
    words = "512 tokens; the longest, input 1, has 3000 characters"
    assert words in error_of(answer)["message"]


def test_thousands_of_texts_come_back_in_their_order(service, runtime):
    texts = [f"text {n}" for n in range(2048)]
    told = embed(service, texts).answer().json()
    assert [item["index"] for item in told["data"]] == list(range(2048))
    alone = embed(service, texts[2000]).answer().json()
    assert told["data"][2000]["embedding"] == alone["data"][0]["embedding"]
    assert told["usage"]["prompt_tokens"] == 2048 * 4
