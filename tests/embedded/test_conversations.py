"""Conversations that end with any role, with the real engine."""

from __future__ import annotations

from mes.domain import Message, Prompt
from mes.ollama.payloads import generation_payload
from tests.embedded.conftest import MODEL
from tests.fakes import spec

USER = Message("user", "What is the capital of France?")
GREEDY = {"temperature": 0, "num_predict": 16, "num_ctx": 2048}


def answer(client, *messages):
    prompt = Prompt(spec(MODEL), "", None, GREEDY, messages=messages)
    payload = generation_payload(prompt)
    reply = client.chat(MODEL, payload["messages"], options=payload["options"])
    return reply.message.content, reply.prompt_eval_count


def test_the_model_continues_the_text_of_the_assistant(client):
    text, _ = answer(client, USER, Message("assistant", "The capital of France is the city of"))
    assert text.startswith(" Paris")


def test_the_model_continues_several_texts_of_the_assistant(client):
    begun = (Message("assistant", "The capital of France"), Message("assistant", "is the city of"))
    assert answer(client, USER, *begun)[0].startswith(" Paris")


def test_an_empty_text_of_the_assistant_changes_nothing(client):
    assert answer(client, USER, Message("assistant", "")) == answer(client, USER)


def test_an_answer_whose_end_is_ignored_has_all_tokens(client):
    options = {**GREEDY, "num_predict": 24, "ignore_eos": True}
    reply = client.chat(MODEL, [{"role": "user", "content": USER.content}], options=options)
    assert (reply.eval_count, reply.done_reason) == (24, "length")


def test_a_conversation_may_have_only_a_system_message(client):
    assert "Paris" in answer(client, Message("system", USER.content))[0]
