"""The text of token ids, from the real engine."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from mes.embedded.gguf import Header
from mes.embedded.tokens import without_begin_token
from tests.embedded.conftest import MODEL, Program

HELLO_WORLD = [19556, 905]


def detokenize(program: Program, tokens: Any, model: str = MODEL) -> requests.Response:
    body = {"model": model, "tokens": tokens}
    return requests.post(f"{program.url}/api/detokenize", json=body, timeout=60)


def test_token_ids_are_converted_to_their_text(program):
    assert detokenize(program, HELLO_WORLD).json() == {"model": MODEL, "text": "Hello world"}


def test_control_tokens_are_a_part_of_the_text(program):
    """A vocabulary whose texts begin with no token of their own loses none."""
    assert detokenize(program, [1, *HELLO_WORLD]).json()["text"] == "<|im_start|>Hello world"


def test_a_part_of_a_character_is_replaced(program):
    assert detokenize(program, [10813]).json()["text"] == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("tokens", [[49152], [-1], [2**31], [2**40], ["a"], [True], [1.5], "a", 5])
def test_ids_outside_the_vocabulary_are_a_bad_request(program, tokens):
    response = detokenize(program, tokens)
    assert response.status_code == 400
    assert "token" in response.json()["error"]


def test_an_unknown_model_is_not_found(program):
    assert detokenize(program, HELLO_WORLD, "absent").status_code == 404


@pytest.mark.parametrize(
    ("metadata", "begin_token"),
    [
        ({"tokenizer.ggml.model": "llama", "tokenizer.ggml.bos_token_id": 1}, 1),
        ({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.bos_token_id": 1}, None),
        (
            {
                "tokenizer.ggml.model": "gpt2",
                "tokenizer.ggml.bos_token_id": 7,
                "tokenizer.ggml.add_bos_token": True,
            },
            7,
        ),
        ({}, None),
    ],
)
def test_the_token_at_the_beginning_is_that_which_the_engine_adds(metadata, begin_token):
    assert Header(metadata, 0).begin_token == begin_token


def test_only_the_first_token_is_left_out_if_it_marks_the_beginning():
    header = Header({"tokenizer.ggml.model": "llama", "tokenizer.ggml.bos_token_id": 1}, 0)
    assert without_begin_token([1, 5, 1], header) == [5, 1]
    assert without_begin_token([5, 1], header) == [5, 1]
    assert without_begin_token([], header) == []
