"""A request that is alone gives the same bytes, whatever the engine did before."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from .conftest import MODEL

QUESTION = "List the colours of the rainbow, the days of the week and the seasons. " * 6
EXACT = {"temperature": 0, "seed": 7, "num_predict": 4}


def ask(program, prompt, **fields):
    body = {"model": MODEL, "prompt": prompt, "raw": True, "stream": False, **fields}
    return httpx.post(f"{program.url}/api/generate", json=body, timeout=60).json()


def alone(program):
    """Return the answer with the probabilities of its tokens, in which small differences show."""
    return ask(program, QUESTION, options=EXACT, logprobs=True)


def keep_busy(program):
    """Make eight requests at a time, some of which begin like the question."""
    prompts = [QUESTION[: 40 * number] + f"{number} is a number" for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda prompt: ask(program, prompt, options={"num_predict": 3}), prompts))


@pytest.fixture(scope="module")
def cached(start):
    program = start(EMBEDDED_PROMPT_CACHE="true", OLLAMA_CONTEXT_LENGTH="256")
    yield program
    program.end()


def test_a_request_alone_is_answered_the_same_after_the_model_was_busy(program):
    first = alone(program)
    keep_busy(program)
    again = alone(program)
    assert (again["response"], again["logprobs"]) == (first["response"], first["logprobs"])
    assert again["prompt_cached_count"] == 0


def test_the_prompt_cache_can_be_turned_on(cached):
    counts = [ask(cached, QUESTION, options=EXACT)["prompt_cached_count"] for _ in range(2)]
    assert counts[0] == 0
    assert counts[1] > 40
