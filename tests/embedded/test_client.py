"""The official `ollama` client works with the program, a real engine and a real model."""

import json

import ollama
import pytest

from .conftest import MODEL, until

QUESTION = "What is the capital of France?"
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}
EXACT = {"temperature": 0, "seed": 7, "num_predict": 32}


@pytest.fixture(autouse=True)
def _loaded(client):
    """Load the model before each test, which may follow a test that unloads it."""
    client.generate(model=MODEL, keep_alive=-1)


def test_the_model_is_listed_with_its_digest_and_details(client):
    model = next(listed for listed in client.list().models if listed.model == MODEL)
    assert model.digest == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert (model.details.parameter_size, model.details.quantization_level) == ("134.52M", "Q4_1")


def test_show_reports_capabilities_and_context(client):
    shown = client.show(MODEL)
    assert shown.capabilities == ["completion", "tokenize"]
    assert shown.modelinfo["llama.context_length"] == 8192


def test_a_loaded_model_is_in_ps_with_its_context_and_expiry(client):
    (running,) = [loaded for loaded in client.ps().models if loaded.model == MODEL]
    assert (running.context_length, running.size_vram) == (2048, 0)
    assert running.size > 50_000_000
    assert running.expires_at.year > 2300


def test_generate_knows_the_capital_of_france(client):
    answer = client.generate(model=MODEL, prompt=QUESTION, options=EXACT)
    assert "Paris" in answer.response
    assert (answer.done, answer.done_reason, answer.model) == (True, "stop", MODEL)


def test_chat_knows_the_capital_of_france(client):
    answer = client.chat(
        model=MODEL, messages=[{"role": "user", "content": QUESTION}], options=EXACT
    )
    assert "Paris" in answer.message.content
    assert answer.message.role == "assistant"


def test_the_pieces_of_a_stream_join_to_the_answer_without_streaming(client):
    request = {"model": MODEL, "prompt": QUESTION, "options": EXACT}
    single = client.generate(**request)
    *pieces, last = client.generate(**request, stream=True)
    assert "".join(piece.response for piece in pieces) == single.response
    assert len(pieces) > 3
    assert not any(piece.done for piece in pieces)
    assert (last.done, last.response, last.eval_count) == (True, "", single.eval_count)


def test_token_counts_are_those_of_ollama_also_for_a_repeated_prompt(client):
    request = {"model": MODEL, "prompt": QUESTION, "options": {**EXACT, "num_predict": 3}}
    first, second = client.generate(**request), client.generate(**request)
    # The count of Ollama for the same prompt and model.
    assert first.prompt_eval_count == second.prompt_eval_count == 16
    assert (first.eval_count, first.done_reason) == (3, "length")
    assert 0 < first.eval_duration < first.total_duration


def test_a_system_message_is_part_of_the_prompt(client):
    def tokens(**fields):
        options = {"num_predict": 1}
        return client.generate(
            model=MODEL, prompt=QUESTION, options=options, **fields
        ).prompt_eval_count

    assert tokens(system="Answer in one word.") == tokens() + 10


def test_a_raw_prompt_is_continued_without_a_template(client):
    answer = client.generate(
        model=MODEL, prompt="The capital of France is", raw=True, options=EXACT
    )
    assert "Paris" in answer.response
    assert answer.prompt_eval_count == 5


def test_the_same_seed_gives_the_same_text(client):
    options = {"seed": 11, "temperature": 1.0, "num_predict": 12}
    request = {"model": MODEL, "prompt": "Once upon a time", "raw": True, "options": options}
    assert client.generate(**request).response == client.generate(**request).response


@pytest.mark.parametrize("count", [0, 3])
def test_each_token_comes_with_its_probability(client, count):
    fields = {"logprobs": True, "top_logprobs": count, "options": EXACT}
    answer = client.generate(MODEL, QUESTION, **fields)
    assert "".join(each.token for each in answer.logprobs) == answer.response
    assert all(each.logprob <= 0 for each in answer.logprobs)
    assert [len(each.top_logprobs or []) for each in answer.logprobs] == [count] * len(
        answer.logprobs
    )


def test_stop_ends_the_text_before_the_word(client):
    options = {**EXACT, "stop": ["Paris"]}
    answer = client.generate(model=MODEL, prompt=QUESTION, options=options)
    assert "Paris" not in answer.response
    assert answer.done_reason == "stop"


@pytest.mark.parametrize("chat", [False, True])
def test_a_schema_is_enforced_in_the_order_it_was_given(client, chat):
    text = "Write a poem about John Smith, who is 25 years old."
    options = {"temperature": 1.5, "seed": 3, "num_predict": 128}
    if chat:
        messages = [{"role": "user", "content": text}]
        answer = client.chat(MODEL, messages, format=PERSON, options=options).message.content
    else:
        answer = client.generate(MODEL, text, format=PERSON, options=options).response
    found = json.loads(answer)
    assert list(found) == ["name", "age"]
    assert isinstance(found["age"], int)


def test_json_mode_gives_an_object(client):
    text = "Give the name and age of John Smith, 25."
    answer = client.generate(MODEL, text, format="json", options={**EXACT, "num_predict": 96})
    assert answer.response.lstrip().startswith("{")
    if answer.done_reason == "stop":
        assert isinstance(json.loads(answer.response), dict)


@pytest.mark.parametrize("schema", [{"type": "date"}, {"$ref": "http://x.test/y"}])
def test_a_schema_that_cannot_be_enforced_is_refused(client, schema):
    with pytest.raises(ollama.ResponseError, match="JSON schema conversion failed") as caught:
        client.generate(MODEL, QUESTION, format=schema)
    assert caught.value.status_code == 400


def test_an_over_long_prompt_is_refused_with_its_length(client):
    with pytest.raises(ollama.ResponseError) as caught:
        client.generate(MODEL, "word " * 3000)
    error = json.loads(caught.value.error)["error"]
    assert (caught.value.status_code, error["type"]) == (400, "exceed_context_size_error")
    assert (error["n_prompt_tokens"], error["n_ctx"]) == (3010, 2048)


def test_all_slots_answer_at_a_time_each_with_the_whole_context(client, program):
    from concurrent.futures import ThreadPoolExecutor

    def ask(number):
        return client.generate(MODEL, f"Count from {number}", options=EXACT).done_reason

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(ask, range(8))) <= {"stop", "length"}
    assert len(program.children) == 1


def test_an_unloaded_model_leaves_ps(client):
    assert client.generate(model=MODEL, keep_alive=0).done_reason == "unload"
    until(lambda: not client.ps().models)


def test_keep_alive_after_an_answer_unloads_the_model(client):
    client.generate(MODEL, QUESTION, options=EXACT, keep_alive=0.05)
    until(lambda: not client.ps().models)


def test_pulling_an_installed_model_succeeds_at_once(client):
    assert [event.status for event in client.pull(MODEL, stream=True)][-1] == "success"
    assert client.pull(MODEL).status == "success"


def test_pulling_an_unknown_model_lists_the_known_ones(client):
    with pytest.raises(ollama.ResponseError, match="can pull smollm2:135m, all-minilm"):
        client.pull("llama3.1:8b")


def test_an_embedding_from_a_chat_model_is_refused(client):
    with pytest.raises(ollama.ResponseError) as caught:
        client.embed(MODEL, "x")
    assert caught.value.status_code == 501
