"""Several choices in one response: `n`, lists of prompts, and their streams."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from dataclasses import replace

import pytest

from mes.api.openapi.docs_page import document_of
from mes.errors import GenerationAborted
from tests.api.conftest import KEY
from tests.api.test_chat import AS_PERSON, HELLO, WEATHER, events, refusal
from tests.api.test_inference import JOHN
from tests.api.test_metrics import samples, total  # noqa: F401 (a fixture)
from tests.fakes import eventually
from tests.support.contract import Contract

DOORS = {
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/completions": {"prompt": "Hello"},
}


@pytest.fixture
def catalog_path(tmp_path):
    path = tmp_path / "models.json"
    models = {"smollm2:135m": {"context_window": 4096, "max_concurrent": 2}}
    path.write_text(json.dumps({"models": models}))
    return path


@pytest.fixture
def post(client):
    def send(path, **fields):
        document = {"model": "smollm2:135m", **DOORS[path], **fields}
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        return client.post(path, data=json.dumps(document), headers=headers)

    return send


@pytest.fixture
def chat(post):
    return lambda **fields: post("/v1/chat/completions", **fields)


@pytest.fixture
def complete(post):
    return lambda **fields: post("/v1/completions", **fields)


def by_seed(prompt):
    """Return an answer that tells the seed of its generation."""
    return f"seed {prompt.options['seed']}"


def text_of(choice):
    return choice["message"]["content"] if "message" in choice else choice["text"]


def streamed(chunks):
    """Return the text of each choice of a stream, by index."""
    texts = defaultdict(str)
    for chunk in chunks:
        for choice in chunk["choices"]:
            piece = choice["delta"].get("content") if "delta" in choice else choice["text"]
            texts[choice["index"]] += piece or ""
    return dict(texts)


@pytest.mark.parametrize("path", DOORS)
def test_each_choice_has_its_index_and_the_next_seed(post, runtime, path):
    runtime.answers = by_seed
    answer = post(path, n=3, seed=7).get_json()
    assert [each["index"] for each in answer["choices"]] == [0, 1, 2]
    assert [text_of(each) for each in answer["choices"]] == ["seed 7", "seed 8", "seed 9"]
    assert answer["usage"] == {"prompt_tokens": 30, "completion_tokens": 15, "total_tokens": 45}
    facts = answer["mes"]["choices"]
    assert [(each["index"], each["provenance"]["seed"]) for each in facts] == [
        (0, 7),
        (1, 8),
        (2, 9),
    ]


def test_seeds_stay_within_31_bits(chat, runtime):
    assert chat(n=2, seed=2**31 - 1).status_code == 200
    assert {each.options["seed"] for each in runtime.prompts} == {2**31 - 1, 0}


def test_choices_without_a_seed_have_different_ones(chat, runtime):
    answer = chat(n=4).get_json()
    seeds = [each["provenance"]["seed"] for each in answer["mes"]["choices"]]
    assert len(set(seeds)) == 4
    assert set(seeds) == {each.options["seed"] for each in runtime.prompts}


@pytest.mark.parametrize("n", [1, None])
@pytest.mark.parametrize("path", DOORS)
def test_one_choice_has_the_response_of_a_request_without_n(post, path, n):
    single, without = post(path, n=n, seed=1).get_json(), post(path, seed=1).get_json()
    assert "choices" not in single["mes"]
    assert single.keys() == without.keys()
    assert single["mes"].keys() == without["mes"].keys()


@pytest.mark.parametrize("path", DOORS)
def test_a_stream_has_all_choices_by_index_and_one_usage(app, post, runtime, path):
    runtime.answers = lambda prompt: f"{by_seed(prompt)} and more"
    chunks = events(post(path, n=3, seed=7, stream=True, stream_options={"include_usage": True}))
    *others, usage = chunks
    assert streamed(others) == {k: f"seed {7 + k} and more" for k in range(3)}
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 45)
    assert all(each["usage"] is None for each in others)
    ends = [each for each in others if each["choices"][0]["finish_reason"]]
    assert sorted(each["choices"][0]["index"] for each in ends) == [0, 1, 2]
    for end in ends:
        assert end["mes"]["provenance"]["seed"] == 7 + end["choices"][0]["index"]
    name = "CompletionChunk" if path == "/v1/completions" else "ChatCompletionChunk"
    contract = Contract(document_of(app))
    assert [contract.violations_of(name, each) for each in chunks] == [[]] * len(chunks)


def test_each_choice_of_a_chat_stream_begins_with_the_role(chat):
    roles = {}
    for chunk in events(chat(n=2, stream=True)):
        (choice,) = chunk["choices"]
        roles.setdefault(choice["index"], []).append(choice["delta"].get("role"))
    assert {index: each[0] for index, each in roles.items()} == {0: "assistant", 1: "assistant"}
    assert not any(role for each in roles.values() for role in each[1:])


def test_each_choice_is_validated_on_its_own(chat, runtime):
    runtime.answers = lambda prompt: JOHN if prompt.options["seed"] % 2 else "no JSON"
    answer = chat(n=2, seed=3, response_format=AS_PERSON, mes={"max_attempts": 1}).get_json()
    facts = answer["mes"]["choices"]
    assert [each["success"] for each in facts] == [True, False]
    assert [each["structured"]["verdict"] for each in facts] == ["valid", "not_json"]
    assert facts[1]["code"] == "not_json"


def test_each_choice_is_retried_on_its_own(chat, runtime):
    # Seeds 8 and 9 belong to the second choice: its first attempt fails.
    runtime.answers = lambda prompt: "no JSON" if prompt.options["seed"] == 20 else JOHN
    answer = chat(n=2, seed=19, response_format=AS_PERSON, mes={"max_attempts": 2}).get_json()
    assert [each["structured"]["attempts"] for each in answer["mes"]["choices"]] == [1, 2]
    assert answer["usage"]["prompt_tokens"] == 30


def test_the_calls_of_choices_have_different_ids(chat, runtime):
    runtime.answers = lambda prompt: '{"city": "Rome"}'
    choice = {"type": "function", "function": {"name": "weather"}}
    answer = chat(n=2, tools=[WEATHER], tool_choice=choice).get_json()
    ids = [each["message"]["tool_calls"][0]["id"] for each in answer["choices"]]
    assert len(set(ids)) == 2
    streamed_ids = {
        call["id"]
        for chunk in events(chat(n=2, tools=[WEATHER], tool_choice=choice, stream=True))
        for call in chunk["choices"][0]["delta"].get("tool_calls", [])
        if "id" in call
    }
    assert len(streamed_ids) == 2


def test_prompts_are_answered_in_their_order_with_the_choices_of_each_together(complete, runtime):
    runtime.answers = lambda prompt: f"{prompt.text}{prompt.options['seed']}"
    answer = complete(prompt=["a", "b"], n=2, seed=5).get_json()
    assert [(each["index"], each["text"]) for each in answer["choices"]] == [
        (0, "a5"),
        (1, "a6"),
        (2, "b5"),
        (3, "b6"),
    ]


@pytest.mark.parametrize("best_of", [1, 3, None])
def test_best_of_changes_nothing_where_it_is_1_or_n(complete, best_of):
    assert len(complete(n=3, best_of=best_of).get_json()["choices"]) == 3


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"n": 9}, "n", "MAX_CHOICES"),
        ({"n": 0}, "n", "at least 1"),
        ({"n": "2"}, "n", "whole number"),
        ({"n": 2, "best_of": 4}, "best_of", "1 or n"),
        ({"prompt": ["a"] * 257}, "prompt", "MAX_GENERATIONS"),
        ({"prompt": ["a"] * 100, "n": 3}, "prompt", "300"),
        ({"prompt": []}, "prompt", "empty"),
        ({"prompt": ["a", ""]}, "prompt", "empty"),
        ({"prompt": ["a", 1]}, "prompt", "texts"),
    ],
)
def test_a_number_that_is_too_large_is_refused_with_the_setting(complete, fields, param, words):
    error = refusal(complete(**fields))
    assert error["param"] == param
    assert words in error["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_the_first_failure_ends_the_other_choices_and_is_the_error(
    app, chat, runtime, caplog, stream
):
    def answer(prompt):
        assert runtime.hanging.acquire(timeout=10)
        return GenerationAborted("the second choice fails")

    runtime.answers = answer
    runtime.hangs = lambda prompt: prompt.options["seed"] != 8
    with caplog.at_level(logging.INFO, "mes.requests"):
        error = refusal(chat(n=2, seed=7, stream=stream), 502)
    (line,) = [record for record in caplog.records if record.name == "mes.requests"]
    assert (line.choices, line.code) == (2, "generation_aborted")
    assert (error["code"], error["message"]) == ("generation_aborted", "the second choice fails")
    assert not app.extensions["mes"].coordinator.read().permits


def test_a_failure_after_the_first_tokens_is_the_last_event(app, chat, runtime):
    runtime.hangs = lambda prompt: prompt.options["seed"] == 8
    runtime.breaks_off = GenerationAborted("broke off")
    *_, last, nothing = chat(n=2, seed=7, stream=True).get_data(as_text=True).split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "generation_aborted"
    assert nothing == ""
    assert not app.extensions["mes"].coordinator.read().permits


def test_a_stream_that_is_closed_ends_all_its_choices(app, chat, runtime):
    services = app.extensions["mes"]
    free = services.wait_slots._value
    runtime.hangs = lambda prompt: prompt.options["seed"] != 7
    unread = chat(n=2, seed=7, stream=True)
    assert runtime.hanging.acquire(timeout=10)
    unread.close()
    assert services.wait_slots._value == free
    assert not services.coordinator.read().permits


def test_only_as_many_choices_run_at_a_time_as_the_model_may_run(app, chat, runtime):
    """The other choices hold no place in the queue."""
    together = []

    def answer(prompt):
        state = app.extensions["mes"].coordinator.read()
        together.append(len(state.permits) + len(state.tickets))
        return "Paris"

    runtime.answers = answer
    assert chat(n=8).status_code == 200
    assert max(together) <= 2


def test_a_request_with_choices_is_logged_once_and_counts_each_generation(
    chat,
    samples,  # noqa: F811
    caplog,
):
    with caplog.at_level(logging.INFO, "mes.requests"):
        assert chat(n=3).status_code == 200
    (line,) = [record for record in caplog.records if record.name == "mes.requests"]
    assert (line.choices, line.usage["completion_tokens"]) == (3, 15)
    model = "gen_ai_request_model=smollm2:135m"
    assert total(samples("gen_ai_server_request_duration_seconds_count"), model) == 1
    assert total(samples("gen_ai_server_time_to_first_token_seconds_count"), model) == 3
    tokens = samples("gen_ai_client_token_usage_sum")
    assert total(tokens, model, "gen_ai_token_type=output") == 15


def test_each_structured_choice_is_counted_with_its_verdict(chat, runtime, samples):  # noqa: F811
    runtime.answers = lambda prompt: JOHN if prompt.options["seed"] % 2 else "no JSON"
    chat(n=2, seed=3, response_format=AS_PERSON, mes={"max_attempts": 1})
    answers = samples("mes_structured_answers_total")
    assert total(answers, "verdict=valid") == 1
    assert total(answers, "verdict=not_json") == 1


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ([72, 105], ["Hi"]),
        ([[72, 105], [79, 107]], ["Hi", "Ok"]),
        ([[72]], ["H"]),
        ([72] * 3000, ["H" * 3000]),
    ],
)
def test_token_ids_are_converted_and_answered_as_text(complete, runtime, prompt, texts):
    runtime.answers = lambda prompt: f"{prompt.text}!"
    answer = complete(prompt=prompt).get_json()
    assert [each["text"] for each in answer["choices"]] == [f"{text}!" for text in texts]
    assert [each.messages for each in runtime.prompts] == [()] * len(texts)


@pytest.mark.parametrize(
    "prompt", [[1, "a"], [[1], "a"], [[1], 2], [True], [-1], [2**31], [1.5], [[1], [[2]]]]
)
def test_what_is_neither_text_nor_token_ids_is_refused(complete, prompt):
    error = refusal(complete(prompt=prompt))
    assert (error["param"], "token ids" in error["message"]) == ("prompt", True)


def test_token_ids_without_a_text_are_refused(complete, runtime):
    runtime.detokenize = lambda spec, ids, **_: ""
    assert "no text" in refusal(complete(prompt=[1]))["message"]


def test_token_ids_for_a_runtime_that_cannot_read_them_are_refused_before_the_queue(
    app, client, complete, runtime
):
    runtime.capabilities = ("completion",)
    runtime.on_disk = [replace(each, digest=f"{each.digest}1") for each in runtime.on_disk]
    status = app.extensions["mes"].runtime_status
    eventually(lambda: status.current().pulled["smollm2:135m"].capabilities == ("completion",))
    error = refusal(complete(prompt=[[72, 105]]))
    assert error["param"] == "prompt"
    assert "send the prompt as text" in error["message"]
    assert not runtime.loads


@pytest.fixture
def drop_from_catalog(app, catalog_path):
    """Return a function that replaces the model in the catalog, and waits until that is noticed."""
    file = app.extensions["mes"].catalog

    def drop(prompt):
        catalog_path.write_text(json.dumps({"models": {"other:1b": {}}}))
        eventually(lambda: [spec.id for spec in file.current().models] == ["other:1b"])
        return "Paris"

    return drop


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("path", DOORS)
def test_an_answer_is_sent_though_the_catalog_changed_meanwhile(
    post, runtime, drop_from_catalog, path, count
):
    runtime.answers = drop_from_catalog
    response = post(path, model="SmolLM2:135M", n=count)
    assert response.status_code == 200, response.get_json()
    assert response.get_json()["model"] == "smollm2:135m"
    assert [text_of(each) for each in response.get_json()["choices"]] == ["Paris"] * count


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("path", DOORS)
def test_a_stream_is_complete_though_the_catalog_changed_meanwhile(
    post, runtime, drop_from_catalog, path, count
):
    runtime.answers = drop_from_catalog
    chunks = events(post(path, model="SmolLM2:135M", n=count, stream=True))
    assert streamed(chunks) == dict.fromkeys(range(count), "Paris")
    assert {each["model"] for each in chunks} == {"smollm2:135m"}
