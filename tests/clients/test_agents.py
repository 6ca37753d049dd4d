"""Agent frameworks and SDKs, unchanged, with a fake runtime whose model calls functions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.service import FakeOllama, Service

MODEL = "llama3.1:8b"
WEATHER = "21 degrees in Rome"
REPORT = {"city": "Rome", "degrees": 21}
REPORT_TEXT = '{"city": "Rome", "degrees": 21}'


@pytest.fixture(scope="module")
def runtime() -> Iterator[FakeOllama]:
    with FakeOllama(f"--models={MODEL}") as fake:
        fake.control(abilities={MODEL: ["tools", "thinking"]})
        yield fake


@pytest.fixture(scope="module")
def agents_service(
    runtime: FakeOllama, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("agents")
    with Service(folder, ollama_url=runtime.url, models={MODEL: {}}, WEB_CONCURRENCY=1) as service:
        yield service


def call(name: str, **arguments: Any) -> dict[str, Any]:
    """Return a turn of the runtime that calls one function."""
    return {"calls": [{"name": name, "arguments": arguments}]}


def says(text: str, **fields: str) -> dict[str, str]:
    """Return a turn of the runtime with a text."""
    return {"reply": text, **fields}


def test_autogen_sends_the_names_of_its_agents(runtime, agents_service, run_client):
    runtime.control(turns=[call("get_weather", city="Rome"), says(REPORT_TEXT), says("Fine.")])
    done = run_client("agents", "autogen_team.py", agents_service)
    assert done["report"] == REPORT
    assert done["review"] == "Fine."
    assert {"ToolCallRequestEvent", "ToolCallExecutionEvent"} <= set(done["types"])


def test_langgraph_gets_a_typed_answer_from_a_named_agent(runtime, agents_service, run_client):
    first = [call("get_weather", city="Rome"), says(WEATHER), says(REPORT_TEXT)]
    runtime.control(turns=[*first, says("You are welcome."), says(REPORT_TEXT)])
    done = run_client("agents", "langgraph_agent.py", agents_service)
    assert done["reports"] == [REPORT, REPORT]
    assert done["roles"] == ["human", "ai", "tool", "ai", "human", "ai"]
    assert "weatherman" in done["names"]


def test_langchain_gets_its_answer_as_a_call_of_one_of_two_functions(
    runtime, agents_service, run_client
):
    runtime.control(turns=[call("get_weather", city="Rome"), call("Report", **REPORT)])
    done = run_client("agents", "langchain_agent.py", agents_service)
    assert done["report"] == REPORT
    assert done["roles"][:3] == ["human", "ai", "tool"]


def test_smolagents_gets_a_call_in_each_step(runtime, agents_service, run_client):
    runtime.control(turns=[call("get_weather", city="Rome"), call("final_answer", answer=WEATHER)])
    done = run_client("agents", "smolagents_tools.py", agents_service)
    assert done == {"answer": WEATHER, "steps": 2}


def test_pydantic_ai_asks_again_after_a_wrong_call(runtime, agents_service, run_client):
    wrong = call("final_result", city="Rome", degrees=210)
    called = [call("get_weather", city="Rome"), wrong, call("final_result", **REPORT)]
    runtime.control(turns=[*called, call("get_weather", city="Rome"), says(REPORT_TEXT)])
    done = run_client("agents", "pydantic_ai_typed.py", agents_service)
    assert done["called"]["output"] == done["native"]["output"] == REPORT
    assert done["called"]["parts"].count("tool-call") == 3
    assert done["native"]["parts"] == ["user-prompt", "tool-call", "tool-return", "text"]


def test_litellm_sends_reasoning_back(runtime, agents_service, run_client):
    runtime.control(turns=[says("21.", thinking="It is sunny."), says("5.", thinking="Cold.")])
    done = run_client("agents", "litellm_reasoning.py", agents_service)
    assert done["reasoning"] == ["It is sunny.", "Cold.", "Cold."]
    assert done["content"] == ["21.", "5.", "5."]


def test_llama_index_calls_a_function_and_sends_its_result(runtime, agents_service, run_client):
    asked = call("get_weather", city="Rome")
    runtime.control(turns=[asked, says(WEATHER), asked, says("Warm.")])
    done = run_client("documented", "llama_index_tools.py", agents_service)
    assert done == {
        "call": ["get_weather", {"city": "Rome"}],
        "answer": WEATHER,
        "agent": "Warm.",
    }


def test_vercels_ai_sdk_gets_typed_answers_beside_functions(runtime, agents_service, run_client):
    turns = [says("21.", thinking="Sunny."), says("5.", thinking="Cold.")]
    one = [*turns, call("getWeather", city="Rome"), says(REPORT_TEXT)]
    runtime.control(turns=one * 2)
    done = run_client("vercel", "vercel_ai.cjs", agents_service)
    for each in ("openai", "compatible"):
        assert done[each]["turns"]["texts"] == ["21.", "5."]
        assert done[each]["turns"]["tokens"] > 0
        assert done[each]["typed"] == {"output": REPORT, "steps": 2}
    assert done["compatible"]["turns"]["reasoning"] == ["Sunny.", "Cold."]


def test_semantic_kernel_answers_over_two_turns(runtime, agents_service, run_client):
    asked = call("Weather-get_weather", city="Rome")
    replies = [says(WEATHER), says("You are welcome."), says("5."), says(REPORT_TEXT)]
    runtime.control(turns=[asked, *replies])
    done = run_client("documented", "semantic_kernel_agent.py", agents_service)
    assert done["answers"] == [WEATHER, "You are welcome."]
    assert done["streamed"] == "5."
    assert done["report"] == REPORT


def test_langchain_completes_a_batch_and_calls_any_function(served, run_client):
    done = run_client("agents", "langchain_models.py", served)
    assert done["batch"] == done["alone"]
    assert "Paris" in done["batch"][0]
    (made,) = done["calls"]
    assert made["name"] in ("GetWeather", "GetTime")
    assert made["args"]["city"] in ("Rome", "Oslo")


def test_pydantic_ai_asks_a_small_model_again(served, run_client):
    done = run_client("agents", "pydantic_ai_small.py", served)
    assert done["tries"] == 2
    assert done["output"]["age"] == 25


def test_instructor_asks_a_small_model_again(served, run_client):
    done = run_client("documented", "instructor_retry.py", served)
    assert done["tries"] == 2
    assert done["person"]["age"] == 25


def test_clients_recognize_a_prompt_that_is_too_long(served, run_client):
    done = run_client("agents", "context_overflow.py", served, all_refused=True)
    assert all("ContextWindowExceededError" in bases for bases in done["ask_litellm"])
    assert all("ContextOverflowError" in bases for bases in done["ask_langchain"])
    assert [len(errors) for errors in done.values()] == [2, 2]
