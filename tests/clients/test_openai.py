"""The `openai` SDK with the service under gunicorn and a real model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Literal

import openai
import pytest
from pydantic import BaseModel

from tests.support.served import Served

MODEL = "smollm2:135m"
EXACT = {"temperature": 0, "seed": 7}
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
JOHN = [{"role": "user", "content": "Extract the person: John Smith is 25 years old"}]


class Person(BaseModel):
    name: str
    age: int


class Weather(BaseModel):
    """How warm it is"""

    city: str
    unit: Literal["celsius", "fahrenheit"]


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    base = f"http://127.0.0.1:{served.port}/v1"
    with openai.OpenAI(base_url=base, api_key="mes-dev-key-123", timeout=60) as client:
        yield client


def test_a_chat_is_answered(client):
    answer = client.chat.completions.create(model=MODEL, messages=FRANCE, **EXACT)
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.mes["provenance"]["seed"] == 7


def test_several_choices_have_answers_of_their_own(client):
    story = [{"role": "user", "content": "Tell a story."}]
    fields = {"model": MODEL, "messages": story, "max_tokens": 12, "temperature": 1.5, "seed": 7}
    answer = client.chat.completions.create(n=3, **fields)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1
    assert [facts["provenance"]["seed"] for facts in answer.mes["choices"]] == [7, 8, 9]


def test_several_choices_stream_by_index(client):
    stream = client.chat.completions.create(
        model=MODEL,
        messages=FRANCE,
        n=2,
        stream=True,
        stream_options={"include_usage": True},
        **EXACT,
    )
    *chunks, last = list(stream)
    texts = {0: "", 1: ""}
    for chunk in chunks:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert all("Paris" in text for text in texts.values())
    assert last.usage.completion_tokens > 10


def test_prompts_as_texts_and_as_token_ids_have_the_same_completions(client):
    def complete(prompt):
        answer = client.completions.create(model=MODEL, prompt=prompt, max_tokens=8, **EXACT)
        return [choice.text for choice in answer.choices], answer.usage

    texts, usage = complete(["Hello world", "Hello"])
    assert len(texts) == 2
    assert complete([[19556, 905], [19556]]) == (texts, usage)
    assert complete([19556, 905])[0] == texts[:1]


def test_a_chat_streams_token_by_token(client):
    stream = client.chat.completions.create(
        model=MODEL,
        messages=FRANCE,
        stream=True,
        stream_options={"include_usage": True},
        **EXACT,
    )
    *chunks, last = list(stream)
    pieces = [chunk.choices[0].delta.content for chunk in chunks]
    assert len(pieces) > 5
    assert "Paris" in "".join(piece or "" for piece in pieces)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert last.usage.completion_tokens >= len(pieces) - 1


def test_an_answer_is_parsed(client):
    request = {"model": MODEL, "messages": JOHN, "response_format": Person, **EXACT}
    answer = client.chat.completions.parse(**request)
    assert answer.choices[0].message.parsed == Person(name="John Smith", age=25)
    assert answer.mes["structured"]["verdict"] == "valid"
    with client.chat.completions.stream(**request) as stream:
        assert stream.get_final_completion().choices[0].message.parsed.age == 25


def test_an_answer_that_was_cut_off_raises_the_sdks_own_error(client):
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(
            model=MODEL, messages=JOHN, response_format=Person, max_tokens=3, **EXACT
        )


@pytest.mark.parametrize("stream", [False, True])
def test_a_function_that_has_to_be_called_is_called(client, stream):
    tool = openai.pydantic_function_tool(Weather, name="weather")
    request = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "How warm is Rome, in celsius?"}],
        "tools": [tool],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        **EXACT,
    }
    if stream:
        with client.chat.completions.stream(**request) as streaming:
            answer = streaming.get_final_completion()
    else:
        answer = client.chat.completions.create(**request)
    (choice,) = answer.choices
    (call,) = choice.message.tool_calls
    assert (call.function.name, choice.finish_reason) == ("weather", "tool_calls")
    assert Weather(**json.loads(call.function.arguments))


class Clock(BaseModel):
    """What time it is in a city"""

    city: str


SEVERAL = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "How warm is Rome, in celsius?"}],
    "tools": [
        openai.pydantic_function_tool(Weather, name="weather"),
        openai.pydantic_function_tool(Clock, name="clock"),
    ],
    "tool_choice": "required",
    **EXACT,
}


def test_one_of_several_functions_is_called(client):
    answer = client.chat.completions.parse(**SEVERAL, parallel_tool_calls=False)
    (call,) = answer.choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, Weather | Clock)
    assert answer.choices[0].finish_reason == "tool_calls"


def test_one_of_several_functions_is_called_in_a_stream(client):
    with client.chat.completions.stream(**SEVERAL) as stream:
        kinds = [event.type for event in stream]
        message = stream.get_final_completion().choices[0].message
    (call,) = message.tool_calls
    assert isinstance(call.function.parsed_arguments, Weather | Clock)
    assert message.content is None
    assert kinds.count("tool_calls.function.arguments.done") == 1


def test_a_call_and_its_result_are_sent_back(client):
    message = client.chat.completions.parse(**SEVERAL).choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "31 degrees"}
    messages = [*SEVERAL["messages"], message, result]
    answer = client.chat.completions.create(model=MODEL, messages=messages, **EXACT)
    assert answer.choices[0].message.content


def test_tools_for_a_model_that_cannot_call_them_are_an_error(client):
    tool = openai.pydantic_function_tool(Weather, name="weather")
    with pytest.raises(openai.BadRequestError, match="cannot call tools") as caught:
        client.chat.completions.create(model=MODEL, messages=FRANCE, tools=[tool])
    assert caught.value.param == "tools"


def test_probabilities_are_read(client):
    answer = client.chat.completions.create(
        model=MODEL, messages=FRANCE, logprobs=True, top_logprobs=2, **EXACT
    )
    tokens = answer.choices[0].logprobs.content
    assert "".join(each.token for each in tokens) == answer.choices[0].message.content
    assert all(len(each.top_logprobs) == 2 for each in tokens)


def test_a_prompt_is_completed(client):
    request = {"model": MODEL, "prompt": "The capital of France is", "max_tokens": 8, **EXACT}
    answer = client.completions.create(**request)
    assert "Paris" in answer.choices[0].text
    pieces = [chunk.choices[0].text for chunk in client.completions.create(**request, stream=True)]
    assert "".join(pieces) == answer.choices[0].text


def test_models_are_listed_and_found(client):
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).object == "model"


def test_the_asynchronous_client_gets_the_same_answer(served):
    async def ask() -> str:
        base = f"http://127.0.0.1:{served.port}/v1"
        async with openai.AsyncOpenAI(base_url=base, api_key="mes-dev-key-123") as client:
            request = {"model": MODEL, "messages": FRANCE, **EXACT}
            whole = await client.chat.completions.create(**request)
            stream = await client.chat.completions.create(**request, stream=True)
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert whole.choices[0].message.content == "".join(pieces)
        return "".join(pieces)

    assert "Paris" in asyncio.run(ask())
