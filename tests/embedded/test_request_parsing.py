"""Requests are parsed completely, or refused with Ollama's messages."""

import pytest

from mes.embedded import request_parsing
from mes.embedded.api_errors import BadRequest
from mes.embedded.grammar import BadFormat


def test_a_prompt_becomes_a_conversation_with_its_system_message():
    parsed = request_parsing.parse_generate({"model": "m", "prompt": "hello", "system": "be brief"})
    assert parsed.messages == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
    ]


def test_a_raw_prompt_is_unchanged():
    parsed = request_parsing.parse_generate({"model": "m", "prompt": "hello", "raw": True})
    assert (parsed.prompt, parsed.messages) == ("hello", [])


@pytest.mark.parametrize("body", [{}, {"prompt": ""}, {"system": "be brief"}, {"raw": True}])
def test_a_request_without_a_prompt_only_loads(body):
    assert request_parsing.parse_generate({"model": "m", **body}).is_empty


def test_a_chat_without_messages_only_loads():
    assert request_parsing.parse_chat({"model": "m", "messages": []}).is_empty


def test_answers_are_streamed_by_default():
    assert request_parsing.parse_generate({"model": "m"}).stream
    assert not request_parsing.parse_generate({"model": "m", "stream": False}).stream


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"think": True}, '"m" does not support thinking'),
        ({"tools": [{}]}, "registry.ollama.ai/library/m:latest does not support tools"),
        ({"suffix": "x"}, "registry.ollama.ai/library/m:latest does not support insert"),
        ({"images": ["aGk="]}, "image input is not supported by the embedded runtime"),
        ({"template": "{{ .Prompt }}"}, "template is not supported by the embedded runtime"),
        ({"context": [1, 2]}, "context is not supported by the embedded runtime"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs must be between 0 and 20"),
    ],
)
def test_unsupported_fields_are_refused(field, message):
    with pytest.raises(BadRequest) as caught:
        request_parsing.parse_generate({"model": "m", "prompt": "x", **field})
    assert str(caught.value) == message


def test_think_false_is_accepted():
    assert request_parsing.parse_generate({"model": "m", "prompt": "x", "think": False})


def test_images_in_a_message_are_refused():
    with pytest.raises(BadRequest, match="image input"):
        request_parsing.parse_chat(
            {"model": "m", "messages": [{"role": "user", "images": ["aGk="]}]}
        )


def test_a_format_is_json_a_schema_or_nothing():
    def parsed(value):
        return request_parsing.parse_generate({"model": "m", "format": value}).format

    assert parsed("") is parsed(None) is None
    assert parsed("json") == parsed({}) == {"type": "object"}
    with pytest.raises(BadFormat) as caught:
        parsed("yaml")
    expected = r'invalid format: "\"yaml\""; expected "json" or a valid JSON Schema object'
    assert str(caught.value) == expected


@pytest.mark.parametrize(("value", "inputs"), [("", []), ([], []), ("a", ["a"]), (["a"], ["a"])])
def test_an_input_to_embed_is_a_text_or_several(value, inputs):
    assert request_parsing.parse_embed({"model": "m", "input": value}).inputs == inputs


@pytest.mark.parametrize("value", [7, [1], {"a": 1}])
def test_other_inputs_to_embed_are_refused(value):
    with pytest.raises(BadRequest, match="invalid input type"):
        request_parsing.parse_embed({"model": "m", "input": value})
