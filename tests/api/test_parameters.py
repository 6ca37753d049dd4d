"""Parameters in the spellings and with the values that clients send."""

from __future__ import annotations

import pytest

from tests.api.test_chat import CALLED, WEATHER, chat
from tests.api.test_completions import complete

__all__ = ["chat", "complete"]  # fixtures


@pytest.fixture(params=["chat", "completions", "native"])
def options(request, chat, complete, ask, runtime):
    """Send parameters to an endpoint, and return the options that the runtime gets."""
    endpoint = {"chat": chat, "completions": complete, "native": ask}[request.param]

    def send(**parameters):
        response = endpoint(**parameters)
        assert response.status_code == 200, response.get_json()
        return runtime.prompts[-1].options

    return send


@pytest.fixture(params=["chat", "completions"])
def openai_options(request, chat, complete, runtime):
    def send(**parameters):
        response = {"chat": chat, "completions": complete}[request.param](**parameters)
        assert response.status_code == 200, response.get_json()
        return runtime.prompts[-1].options

    return send


@pytest.mark.parametrize("stop", [[], None])
def test_an_empty_list_of_stops_means_none(options, stop):
    assert "stop" not in options(stop=stop)


def test_up_to_64_stops_are_passed_on(options):
    stops = [f"\n{number}" for number in range(64)]
    assert options(stop=stops)["stop"] == stops


@pytest.mark.parametrize(
    ("seed", "used"),
    [
        (0, 0),
        (2**31 - 1, 2**31 - 1),
        (2**31, 0),
        (2**31 + 7, 7),
        (2**63 - 1, 2**31 - 1),
        (-2, 2**31 - 2),
        (-(2**63), 0),
    ],
)
def test_a_seed_of_64_bits_is_folded_into_31(options, seed, used):
    assert options(seed=seed)["seed"] == used


def test_the_seed_minus_1_means_a_random_one(options):
    seeds = {options(seed=-1)["seed"] for _ in range(3)}
    assert len(seeds) == 3
    assert min(seeds) >= 0


def test_the_response_has_the_seed_that_was_used(chat, ask):
    assert chat(seed=2**31 + 7).get_json()["mes"]["provenance"]["seed"] == 7
    assert ask(seed=2**31 + 7).get_json()["provenance"]["seed"] == 7
    assert ask(seed=-1).get_json()["provenance"]["seed"] >= 0


@pytest.mark.parametrize(("top_k", "used"), [(-1, 0), (0, 0), (40, 40)])
def test_the_top_k_minus_1_means_all_tokens(options, top_k, used):
    assert options(top_k=top_k)["top_k"] == used


@pytest.mark.parametrize(
    "limits",
    [
        {"max_tokens": 5, "max_completion_tokens": 5},
        {"max_tokens": None, "max_completion_tokens": 5},
        {"max_tokens": 9, "max_completion_tokens": 5},
        {"max_tokens": 5, "max_completion_tokens": None},
    ],
)
def test_the_newer_name_of_the_limit_counts_if_both_are_sent(openai_options, limits):
    assert openai_options(**limits)["num_predict"] == 5


@pytest.mark.parametrize(("older", "ignored"), [(5, None), (None, None), (9, ["max_tokens"])])
def test_a_limit_that_the_newer_name_replaces_is_listed(chat, older, ignored):
    answer = chat(max_tokens=older, max_completion_tokens=5).get_json()
    assert answer["mes"].get("ignored") == ignored


def test_the_penalty_has_vllms_name_too(openai_options):
    assert openai_options(repetition_penalty=1.1)["repeat_penalty"] == 1.1
    assert openai_options(repetition_penalty=1.1, repeat_penalty=1.1)["repeat_penalty"] == 1.1


@pytest.mark.parametrize(
    ("parameters", "think"),
    [
        ({"reasoning_effort": "max"}, "max"),
        ({"reasoning_effort": "xhigh"}, "max"),
        ({"reasoning_effort": "minimal"}, False),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning": {"effort": "high"}}, "high"),
        ({"reasoning": {"effort": "high"}, "reasoning_effort": "high"}, "high"),
        ({"reasoning": {"effort": None}}, False),
        ({"reasoning": None}, False),
        ({"chat_template_kwargs": {"enable_thinking": True}}, True),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"chat_template_kwargs": {"thinking": True}, "reasoning_effort": "low"}, "low"),
    ],
)
def test_the_effort_becomes_the_level_of_the_runtime(chat, runtime, parameters, think):
    assert chat(**parameters).status_code == 200
    assert runtime.prompts[-1].think == think


def test_the_level_max_can_be_sent_to_the_native_endpoint(ask, runtime):
    assert ask(think="max").status_code == 200
    assert runtime.prompts[-1].think == "max"


def test_the_default_values_of_vllm_are_accepted(openai_options):
    openai_options(
        use_beam_search=False,
        length_penalty=1.0,
        stop_token_ids=[],
        skip_special_tokens=True,
        spaces_between_special_tokens=True,
        include_stop_str_in_output=False,
    )


@pytest.mark.parametrize("suffix", ["", None])
def test_an_empty_suffix_is_accepted(complete, suffix):
    assert complete(suffix=suffix).status_code == 200


def test_probabilities_can_be_asked_for_beside_tools(chat, runtime):
    assert chat(tools=[WEATHER], logprobs=True, top_logprobs=1).status_code == 200
    prompt = runtime.prompts[-1]
    assert (prompt.tools, prompt.top_logprobs) == ((WEATHER,), 1)
    runtime.answers, runtime.tool_calls = lambda prompt: "", (CALLED,)
    answer = chat(tools=[WEATHER], logprobs=True).get_json()
    assert answer["choices"][0]["finish_reason"] == "tool_calls"


def test_the_parameters_of_load_generators_are_listed(chat, runtime):
    answer = chat(ignore_eos=True, min_tokens=5).get_json()
    assert answer["mes"]["ignored"] == ["ignore_eos", "min_tokens"]
    assert "ignore_eos" not in runtime.prompts[-1].options


class TestEmbeddedRuntime:
    @pytest.fixture
    def runtime(self, runtime):
        runtime.version = lambda: "mes-embedded 1.0"
        return runtime

    def test_the_end_of_the_answer_is_ignored_where_the_runtime_can(self, openai_options, runtime):
        assert openai_options(ignore_eos=True)["ignore_eos"] is True

    def test_it_is_not_listed_then(self, chat):
        answer = chat(ignore_eos=True, min_tokens=5).get_json()
        assert answer["mes"]["ignored"] == ["min_tokens"]

    def test_a_schema_ends_the_answer(self, chat, runtime):
        runtime.answers = lambda prompt: "{}"
        format = {"type": "json_object"}
        answer = chat(ignore_eos=True, response_format=format).get_json()
        assert answer["mes"]["ignored"] == ["ignore_eos"]
        assert "ignore_eos" not in runtime.prompts[-1].options
