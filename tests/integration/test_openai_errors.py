"""Errors of the service as exceptions and retries of the `openai` SDK."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.integration.helpers import Call, wait_until_at_rest, wait_until_held
from tests.support.service import KEY, Service

MODEL, ONE_AT_A_TIME = "mistral:7b", "llama3.1:8b"
HELLO = [{"role": "user", "content": "Hello"}]

pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def service(start) -> Service:
    models = {MODEL: {}, ONE_AT_A_TIME: {"max_concurrent": 1, "max_queue": 0}}
    return start(models=models)


@pytest.fixture
def client(service: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key=KEY, timeout=60) as client:
        yield client


def ask(client: openai.OpenAI, model: str = MODEL, **fields):
    return client.chat.completions.create(model=model, messages=HELLO, **fields)


def test_a_wrong_key_is_an_authentication_error(client):
    with pytest.raises(openai.AuthenticationError, match="send the key as"):
        ask(client.with_options(api_key="wrong"))


def test_an_unknown_model_is_a_not_found_error(client):
    with pytest.raises(openai.NotFoundError, match="not configured") as caught:
        ask(client, "nope")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nope")


def test_a_parameter_that_is_not_supported_is_a_bad_request(client):
    with pytest.raises(openai.BadRequestError, match="n: ") as caught:
        ask(client, n=9)
    assert (caught.value.param, caught.value.type) == ("n", "invalid_request_error")


def test_a_prompt_that_is_too_long_is_the_error_that_clients_look_for(client):
    words = [{"role": "user", "content": "word " * 9000}]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="prompt is too long") as caught:
            client.chat.completions.create(model=MODEL, messages=words, stream=stream)
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
        assert "model's maximum context length is" in str(caught.value)


def test_an_endpoint_that_does_not_exist_is_an_error_that_names_those_that_do(client):
    with pytest.raises(openai.NotFoundError, match="there is no /v1/responses; the paths are") as e:
        client.responses.create(model=MODEL, input="Hello")
    assert "/v1/chat/completions" in str(e.value)


def test_a_generation_that_took_too_long_is_not_asked_for_again(runtime, client):
    runtime.control(first_token_ms=60_000)
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client.with_options(max_retries=2), extra_body={"mes": {"timeout": 0.5}})
    assert (caught.value.status_code, caught.value.code) == (504, "generation_timeout")
    assert runtime.stats()["requests"]["generate"] == 1


def test_a_request_that_the_runtime_refuses_is_a_bad_request(runtime, client):
    words = "Cannot have 2 or more assistant messages at the end of the list."
    runtime.control(faults=[{"kind": "error", "stage": "generate", "status": 400, "text": words}])
    with pytest.raises(openai.BadRequestError, match=words) as caught:
        ask(client)
    assert caught.value.code == "request_invalid"


def test_too_many_wrong_keys_are_a_rate_limit(client):
    without_key = client.with_options(api_key="wrong", max_retries=0)

    def raised() -> type[Exception]:
        with pytest.raises(openai.APIStatusError) as caught:
            ask(without_key)
        return caught.type

    kinds = [raised() for _ in range(60)]
    assert kinds[0] is openai.AuthenticationError
    assert openai.RateLimitError in kinds  # each worker counts for itself


def test_a_full_queue_is_tried_again_by_the_sdk(service, runtime, client):
    runtime.control(first_token_ms=4000)
    with Call(service, "/v1/inference", {"model_id": ONE_AT_A_TIME, "prompt": "x"}):
        wait_until_held(service, permits=1, tickets=0)
        with pytest.raises(openai.InternalServerError) as caught:
            ask(client.with_options(max_retries=0), ONE_AT_A_TIME)
        assert (caught.value.status_code, caught.value.code) == (503, "queue_full")
        assert int(caught.value.response.headers["Retry-After"]) >= 1
        runtime.control(first_token_ms=0)
        assert ask(client.with_options(max_retries=9), ONE_AT_A_TIME).choices
    wait_until_at_rest(service)


def test_a_stream_that_breaks_off_is_an_error_of_the_api(runtime, client):
    runtime.control(tokens=50, faults=[{"kind": "error_line", "stage": "generate", "after": 3}])
    stream = ask(client, stream=True)
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.code == "generation_aborted"
