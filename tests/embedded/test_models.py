"""Several models in one program: added, copied and deleted, for text and for embeddings."""

import math
from contextlib import suppress

import ollama
import pytest
import requests

from mes.embedded.gguf_writer import convert_to_gguf

from .conftest import FILE, MODEL, until
from .files import WIDTH, gguf, sentence_encoder

SHORT = {"num_predict": 4, "temperature": 0}


@pytest.fixture(scope="module")
def program(start):
    program = start(OLLAMA_CONTEXT_LENGTH="256", OLLAMA_MAX_LOADED_MODELS="2")
    for name in ["twin--a.gguf", "twin--b.gguf", "dropped.gguf"]:
        (program.models / name).symlink_to((program.models / FILE).resolve())
    folder = program.models / ".made"
    folder.mkdir()
    convert_to_gguf(sentence_encoder(folder), program.models / "encoder.gguf")
    return program


@pytest.fixture(autouse=True)
def _unloaded(client):
    for model in client.ps().models:
        with suppress(ollama.ResponseError):  # deleted by the previous test
            client.generate(model=model.model, keep_alive=0)
    until(lambda: not client.ps().models)


def test_a_gguf_file_added_to_the_folder_is_a_model(client):
    assert client.generate("dropped", "Hello", options=SHORT).eval_count > 1


def test_the_slots_of_each_model_are_listed(program):
    models = requests.get(f"{program.url}/api/tags", timeout=5).json()["models"]
    assert {model["slots"] for model in models} == {4}


def test_a_full_context_ends_the_answer_with_reason_length(client):
    options = {"num_predict": 200, "temperature": 0}
    answer = client.generate(MODEL, "word " * 200, raw=True, options=options)
    assert answer.done_reason == "length"
    assert 250 < answer.prompt_eval_count + answer.eval_count <= 257


def test_two_names_of_one_file_are_two_models_with_a_process_each(client, program):
    client.generate("twin:a", "Hello", options=SHORT)
    client.generate("twin:b", "Hello", options=SHORT)
    assert sorted(program.loaded()) == ["twin:a", "twin:b"]
    assert len(program.children) == 2


def test_a_third_model_evicts_the_least_recently_used(client, program):
    for name in ["twin:a", "twin:b", "twin:a", "dropped"]:
        client.generate(name, "Hello", options=SHORT)
    assert sorted(program.loaded()) == ["dropped:latest", "twin:a"]


def test_other_models_answer_while_one_loads(client, program):
    client.generate("twin:a", "Hello", options=SHORT)
    stream = client.generate("twin:a", "Count to 100", options={"num_predict": 200}, stream=True)
    next(stream)
    client.generate(model="twin:b")
    assert not next(stream).done
    stream.close()


def test_a_copy_can_be_used_and_deleted(client):
    client.copy(MODEL, "spare")
    assert client.generate("SPARE:latest", "Hello", options=SHORT).model == "SPARE:latest"
    client.delete("spare")
    with pytest.raises(ollama.ResponseError, match="model 'spare' not found") as caught:
        client.generate("spare", "Hello")
    assert caught.value.status_code == 404
    assert MODEL in [model.model for model in client.list().models]


def test_a_file_that_the_engine_cannot_load_is_answered_with_an_error(client, program):
    gguf(program.models / "broken.gguf")
    with pytest.raises(ollama.ResponseError, match="llama-server process has terminated") as caught:
        client.generate("broken", "Hello")
    assert caught.value.status_code == 500
    assert client.generate(MODEL, "Hello", options=SHORT).done


def test_different_texts_become_different_unit_vectors(client):
    answer = client.embed("encoder", ["hello world", "a b", "hello world"])
    first, second, third = answer.embeddings
    assert first == pytest.approx(third, abs=1e-5)
    assert first != pytest.approx(second, abs=1e-2)
    assert math.hypot(*first) == pytest.approx(1)
    assert (len(first), answer.prompt_eval_count) == (WIDTH, 12)


def test_a_vector_can_be_shortened_and_stays_a_unit_vector(client):
    (vector,) = client.embed("encoder", "hello", dimensions=8).embeddings
    assert len(vector) == 8
    assert math.hypot(*vector) == pytest.approx(1)


def test_a_long_text_is_truncated_or_refused_as_the_client_requests(client):
    long = "hello " * 500
    assert client.embed("encoder", long).prompt_eval_count == 64
    with pytest.raises(ollama.ResponseError, match="the input length exceeds") as caught:
        client.embed("encoder", long, truncate=False)
    assert caught.value.status_code == 400


def test_the_older_route_gives_one_vector(client):
    (vector,) = client.embed("encoder", "hello").embeddings
    assert client.embeddings("encoder", "hello").embedding == pytest.approx(vector)


def test_an_embedding_model_is_unloaded_like_any_other(client):
    client.embed("encoder", "hello")
    assert client.generate(model="encoder", keep_alive=0).done_reason == "unload"
    until(lambda: not client.ps().models)


def test_an_embedding_model_does_not_chat(client):
    with pytest.raises(ollama.ResponseError, match='"encoder" does not support chat') as caught:
        client.chat("encoder", [{"role": "user", "content": "hello"}])
    assert caught.value.status_code == 400


@pytest.fixture
def _encoder(pulled):
    if not (pulled / "all-minilm--latest.gguf").exists():
        pytest.skip("all-minilm is not pulled")


@pytest.mark.usefixtures("_encoder")
def test_a_text_too_long_to_embed_is_refused_with_both_lengths(program):
    body = {
        "model": "all-minilm",
        "input": ["short", "word " * 600],
        "truncate": False,
        "options": {"num_ctx": 512},
    }
    answer = requests.post(f"{program.url}/api/embed", json=body, timeout=60)
    assert answer.status_code == 400
    assert answer.json() == {
        "error": "the input length exceeds the context length",
        "input": 1,
        "n_prompt_tokens": 602,
        "n_ctx": 512,
    }


@pytest.mark.usefixtures("_encoder")
def test_similar_texts_have_similar_vectors(client):
    texts = ["a cat sits on the mat", "a kitten rests on a rug", "stock markets fell sharply"]
    cat, kitten, stocks = client.embed("all-minilm", texts).embeddings

    def similarity(one, other):
        return sum(a * b for a, b in zip(one, other, strict=True))

    assert similarity(cat, kitten) > 0.5 > similarity(cat, stocks)
