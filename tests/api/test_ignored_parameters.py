"""Parameters without effect are accepted and listed, at every endpoint."""

from __future__ import annotations

import pytest

from tests.api.conftest import KEY
from tests.api.test_chat import chat, events, refusal
from tests.api.test_completions import complete

__all__ = ["chat", "complete"]  # fixtures

HINTS = {
    "user": "ann",
    "metadata": {"run": "7"},
    "store": True,
    "service_tier": "priority",
    "verbosity": "low",
    "prediction": None,
    "safety_identifier": "x",
    "prompt_cache_key": None,
    "prompt_cache_retention": "24h",
}

# Flask's client, which the fixture of the completions uses, sorts the members.
IN_ORDER = {"chat": list(HINTS), "completions": sorted(HINTS)}


@pytest.fixture
def endpoints(chat, complete):
    return {"chat": chat, "completions": complete}


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
class TestHints:
    def test_hints_are_listed_in_the_order_of_the_request(self, endpoints, endpoint):
        answer = endpoints[endpoint](**HINTS, stop=None, temperature=None).get_json()
        assert answer["mes"]["ignored"] == IN_ORDER[endpoint]

    def test_a_stream_lists_them_in_its_last_chunk(self, endpoints, endpoint):
        options = {"include_obfuscation": True, "include_usage": None}
        *_, last = events(endpoints[endpoint](stream=True, stream_options=options, user="ann"))
        assert set(last["mes"]["ignored"]) == {"user", "stream_options.include_obfuscation"}

    def test_without_hints_the_list_is_absent(self, endpoints, endpoint):
        assert "ignored" not in endpoints[endpoint](seed=None, n=1).get_json()["mes"]

    def test_an_unknown_parameter_is_refused_and_named(self, endpoints, endpoint):
        assert refusal(endpoints[endpoint](temprature=1))["param"] == "temprature"


@pytest.mark.parametrize("name", ["audio", "functions", "function_call", "web_search_options"])
def test_a_parameter_that_cannot_be_honoured_is_accepted_as_null_only(chat, name):
    assert chat(**{name: None}).get_json()["mes"]["ignored"] == [name]
    error = refusal(chat(**{name: {"name": "x"}}))
    assert error["param"] == name
    assert "is not supported; " in error["message"]


def test_few_and_short_names_are_listed(chat):
    message = {"role": "user", "content": "a", **{f"{n}-{'x' * 150}": n for n in range(100)}}
    names = chat(messages=[message]).get_json()["mes"]["ignored"]
    assert len(names) == 64
    assert {len(name) for name in names} == {100}


def test_embeddings_list_their_hints(client):
    body = {"model": "all-minilm", "input": "a", "user": "ann"}
    answer = client.post("/v1/embeddings", json=body, headers={"X-API-Key": KEY}).get_json()
    assert answer["mes"]["ignored"] == ["user"]
    del body["user"]
    answer = client.post("/v1/embeddings", json=body, headers={"X-API-Key": KEY}).get_json()
    assert "ignored" not in answer["mes"]


def test_the_native_endpoint_refuses_what_it_does_not_know(ask):
    problem = ask(user="ann").get_json()
    assert (problem["status"], problem["errors"][0]["pointer"]) == (422, "/user")
