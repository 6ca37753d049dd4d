"""Embeddings with the `openai` SDK, under gunicorn, from a real sentence encoder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.embedded.conftest import Program
from tests.support.process import ROOT
from tests.support.service import KEY, Service

ENCODER, CHAT = "all-minilm", "smollm2:135m"
TEXTS = ["a cat sits on the mat", "a kitten rests on a rug", "stock markets fell sharply"]


@pytest.fixture(scope="module")
def embedded() -> Iterator[Program]:
    pytest.importorskip("xllamacpp", reason="the engine is not installed: the extra `embedded`")
    folder = Path(os.environ.get("MES_TEST_MODELS_DIR") or ROOT / "models")
    for model in (ENCODER, CHAT):
        pull = [sys.executable, "-m", "mes.embedded", "pull", "--models", str(folder), model]
        subprocess.run(pull, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    program = Program(folder)
    yield program
    program.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def service(embedded: Program, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    models = {ENCODER: {"max_concurrent": 2}, CHAT: {"context_window": 2048, "timeout": 60}}
    folder = tmp_path_factory.mktemp("service")
    with Service(folder, ollama_url=embedded.url, models=models, MAX_LOADED_MODELS=1) as service:
        service.wait_until_ready()
        yield service


@pytest.fixture
def client(service: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key=KEY, timeout=60) as client:
        yield client


def similarity(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_texts_of_similar_meaning_have_similar_vectors(client):
    # The SDK asks for base64 and decodes it.
    response = client.embeddings.create(model=ENCODER, input=TEXTS)
    cat, kitten, stocks = (item.embedding for item in response.data)
    assert similarity(cat, kitten) > 0.5 > similarity(cat, stocks)
    assert similarity(cat, cat) == pytest.approx(1, abs=1e-3)
    assert response.usage.prompt_tokens == response.usage.total_tokens > 15
    assert response.model == ENCODER


def test_both_encodings_have_the_same_numbers(client):
    plain = client.embeddings.create(model=ENCODER, input=TEXTS, encoding_format="float")
    encoded = client.embeddings.create(model=ENCODER, input=TEXTS)
    assert len(plain.data) == len(encoded.data) == 3
    for one, other in zip(plain.data, encoded.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)


def test_fewer_dimensions_are_of_length_1_again(client):
    (item,) = client.embeddings.create(model=ENCODER, input="a cat", dimensions=64).data
    assert len(item.embedding) == 64
    assert similarity(item.embedding, item.embedding) == pytest.approx(1, abs=1e-3)


def test_provenance_and_timings_are_in_the_response(client):
    response = client.embeddings.create(model=ENCODER, input="a cat")
    facts = response.to_dict()["mes"]
    assert facts["provenance"]["runtime"].startswith("mes-embedded ")
    assert facts["provenance"]["model_digest"].startswith("sha256:")
    assert facts["timings"]["total_ms"] >= 0


def test_a_text_that_is_too_long_is_an_error_with_both_numbers(client):
    with pytest.raises(openai.BadRequestError, match=r"input 1 .* 602 tokens.* 512 tokens"):
        client.embeddings.create(model=ENCODER, input=["short", "word " * 600])


def test_token_arrays_are_rejected_with_the_reason(client):
    with pytest.raises(openai.BadRequestError, match="token arrays are not supported") as caught:
        client.embeddings.create(model=ENCODER, input=[[1, 2, 3]])
    assert caught.value.param == "input"


def test_the_encoder_and_a_chat_model_make_room_for_each_other(client, service):
    assert service.infer(CHAT, max_tokens=1).json()["timings"]["cold_start"] is True
    response = client.embeddings.create(model=ENCODER, input="a cat").to_dict()
    assert response["mes"]["timings"]["cold_start"] is True
    assert service.get("/v1/status").json()["models_loaded"] == [ENCODER]
