"""`POST /v1/inference` with `stream` and with `messages`, over a fake runtime."""

from __future__ import annotations

import json
import logging

import pytest

from mes import errors
from mes.api.openapi.docs_page import document_of
from tests.api.conftest import KEY
from tests.api.test_inference import JOHN, PERSON
from tests.support.contract import Contract

HELLO = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
PIXEL = "iVBORw0KGgo="


@pytest.fixture
def converse(ask):
    """Post an inference with a conversation instead of a prompt."""
    return lambda messages=HELLO, **fields: ask(**{"prompt": None, "messages": messages, **fields})


def lines(response):
    with response:
        return [json.loads(each) for each in response.get_data().splitlines()]


def kinds(stream_lines):
    return [each["type"] for each in stream_lines]


def test_a_stream_has_a_line_for_each_token_and_ends_with_the_result(ask, runtime):
    runtime.answers = lambda prompt: "Paris, of course"
    response = ask(stream=True, seed=7)
    assert response.status_code == 200
    assert response.mimetype == "application/x-ndjson"
    assert response.headers["X-Accel-Buffering"] == "no"
    loading, *tokens, last = lines(response)
    assert loading == {"type": "loading"}
    assert tokens == [{"type": "token", "text": text} for text in ("Paris,", " of", " course")]
    assert last.pop("type") == "result"
    assert set(last) == set(ask(seed=7).get_json())
    assert last["output"] == "Paris, of course"
    assert last["request_id"] == response.headers["X-Request-ID"]


LINE_BREAKS = "a\x0bb\x0cc\x1cd\x1ee\x85f\u2028g\u2029h\ri\n\u2014\xe4"
TEXT_OF = {
    "inference": lambda part: part.get("text", ""),
    "completions": lambda part: part["choices"][0]["text"],
    "chat/completions": lambda part: part["choices"][0]["delta"].get("content", ""),
}


@pytest.mark.parametrize("path", TEXT_OF)
def test_no_text_divides_a_line_of_a_stream(client, runtime, path):
    runtime.answers = lambda prompt: LINE_BREAKS
    fields = {"prompt": "Hello"} if path == "completions" else {"messages": HELLO}
    model = {"model_id" if path == "inference" else "model": "smollm2:135m"}
    document = {**model, **fields, "stream": True}
    with client.post(f"/v1/{path}", json=document, headers={"X-API-Key": KEY}) as response:
        sent = response.get_data(as_text=True)
    assert "".join(sent.splitlines()) == sent.replace("\n", "")
    parts = [json.loads(each.removeprefix("data: ")) for each in sent.split("\n") if "{" in each]
    assert "".join(map(TEXT_OF[path], parts)) == LINE_BREAKS


def test_the_stream_of_a_loaded_model_begins_with_its_first_token(ask):
    ask()
    assert kinds(lines(ask(stream=True))) == ["token", "result"]


def test_an_error_before_the_first_line_has_its_status(ask, runtime):
    ask()
    runtime.answers = lambda prompt: errors.PromptTooLong("3010 tokens do not fit into 512")
    for fields, status in (
        ({}, 422),
        ({"model_id": "nope"}, 404),
        ({"temperature": 3}, 422),
        ({"json_schema": {"type": "strin"}}, 422),
    ):
        response = ask(stream=True, **fields)
        assert response.status_code == status
        assert response.mimetype == "application/problem+json"


def test_a_later_error_is_the_last_line(ask, runtime):
    runtime.breaks_off = errors.GenerationAborted("broke off")
    *_, token, last = lines(ask(stream=True))
    assert token["type"] == "token"
    assert (last["type"], last["code"], last["status"]) == ("error", "generation_aborted", 502)
    assert last["success"] is False
    assert last["detail"] == "broke off"


def test_an_unexpected_exception_is_a_last_line_without_details(ask, runtime):
    runtime.breaks_off = ZeroDivisionError("an internal secret")
    *_, last = lines(ask(stream=True))
    assert (last["type"], last["code"], last["status"]) == ("error", "internal_error", 500)
    assert "secret" not in json.dumps(last)


def test_the_verdict_is_in_the_result_and_the_model_is_asked_once(ask, runtime):
    runtime.answers = lambda prompt: '{"name": "John"}'
    *_, last = lines(ask(stream=True, json_schema=PERSON))
    assert (last["success"], last["code"]) == (False, "schema_violation")
    assert last["structured"]["attempts"] == 1


def test_the_lines_of_a_later_attempt_have_its_number(ask, runtime):
    answers = iter(['{"name": "John"}', JOHN])
    runtime.answers = lambda prompt: next(answers)
    *events, last = lines(ask(stream=True, json_schema=PERSON, max_attempts=2))
    texts = {
        number: "".join(
            e["text"] for e in events if e["type"] == "token" and attempt_of(e) == number
        )
        for number in (1, 2)
    }
    assert texts == {1: '{"name": "John"}', 2: JOHN}
    assert (last["success"], last["structured"]["attempts"]) == (True, 2)


def attempt_of(event):
    return event.get("attempt", 1)


def requests_in(caplog):
    return [record for record in caplog.records if record.name == "mes.requests"]


@pytest.mark.parametrize("ending", ["read", "broken", "left"])
def test_a_stream_is_logged_at_its_end_with_its_outcome(ask, runtime, caplog, ending):
    runtime.answers = lambda prompt: "a b c"
    runtime.breaks_off = errors.GenerationAborted("broke off") if ending == "broken" else None
    with caplog.at_level(logging.INFO, "mes.requests"):
        response = ask(stream=True)
        assert not requests_in(caplog)
        if ending != "left":
            response.get_data()
        response.close()
    (record,) = requests_in(caplog)
    expected = {"read": (200, None), "broken": (502, "generation_aborted")}
    assert (record.status, record.code) == expected.get(ending, (499, "client_closed_request"))
    assert record.model == "smollm2:135m"
    if ending == "read":
        assert record.usage == {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        assert record.timings["generation_ms"] == 50


def test_every_stream_releases_its_permit_and_its_wait_slot(ask, app, runtime):
    services = app.extensions["mes"]
    free = services.wait_slots._value
    runtime.answers = lambda prompt: "a b c"
    for error in (None, errors.GenerationAborted("broke off"), errors.ClientDisconnected("gone")):
        runtime.breaks_off = error
        lines(ask(stream=True))
    unread = ask(stream=True)
    assert services.wait_slots._value == free - 1
    assert len(services.coordinator.read().permits) == 1
    unread.close()
    assert services.wait_slots._value == free
    assert not services.coordinator.read().permits


def test_a_conversation_reaches_the_runtime_as_it_is(converse, runtime):
    answer = converse().get_json()
    assert answer["output"] == "Paris"
    assert [(m.role, m.content) for m in runtime.prompts[0].messages] == [
        ("system", "Be brief."),
        ("user", "Hello"),
    ]


def test_a_schema_is_appended_to_the_last_message_of_the_user(converse, runtime):
    runtime.answers = lambda prompt: JOHN
    messages = [*HELLO, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Who?"}]
    converse(messages, model_id="org/prose:q4", json_schema=PERSON)
    *earlier, last = runtime.prompts[0].messages
    assert [m.content for m in earlier] == ["Be brief.", "Hello", "Hi"]
    assert last.content.startswith("Who?\n\n")
    assert json.dumps(PERSON, separators=(",", ":")) in last.content


def test_violations_are_appended_to_the_last_message_of_the_user(converse, runtime):
    answers = iter(['{"name": "John"}', JOHN])
    runtime.answers = lambda prompt: next(answers)
    assert converse(json_schema=PERSON).get_json()["structured"]["attempts"] == 2
    first, second = runtime.prompts
    assert [m.role for m in second.messages] == ["system", "user"]
    assert '{"name": "John"}' in second.question
    assert first.question == "Hello"


def test_images_go_with_their_message(converse, runtime):
    converse([{"role": "user", "content": "What is this?", "images": [PIXEL]}])
    assert runtime.prompts[0].messages[0].images == (PIXEL,)


@pytest.mark.parametrize("think", [True, False, "low", "medium", "high"])
def test_think_is_passed_to_the_runtime(ask, runtime, think):
    assert ask(think=think).status_code == 200
    assert runtime.prompts[0].think == think


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"prompt": "Hello"}, "/messages"),
        ({"system_prompt": "Be brief."}, "/system_prompt"),
        ({"messages": None}, "/prompt"),
        ({"messages": []}, "/messages"),
        ({"messages": "Hello"}, "/messages"),
        ({"messages": ["Hello"]}, "/messages/0"),
        ({"messages": [{"role": "user"}]}, "/messages/0/content"),
        ({"messages": [{"role": "robot", "content": "Hello"}]}, "/messages/0/role"),
        (
            {"messages": [{"role": "user", "content": "", "tool_calls": 1}]},
            "/messages/0/tool_calls",
        ),
        (
            {"messages": [{"role": "user", "content": "", "images": ["#"]}]},
            "/messages/0/images/0",
        ),
        ({"think": "huge"}, "/think"),
        ({"think": 1}, "/think"),
        ({"stream": "yes"}, "/stream"),
    ],
)
def test_a_mistake_in_a_conversation_is_named_with_its_place(converse, runtime, fields, pointer):
    response = converse(**fields)
    problem = response.get_json()
    assert (response.status_code, problem["code"]) == (422, "request_invalid")
    assert [mistake["pointer"] for mistake in problem["errors"]] == [pointer]
    assert runtime.prompts == []


def test_a_line_has_the_probabilities_of_its_tokens(ask, runtime):
    runtime.answers = lambda prompt: "Paris, of course"
    ask()
    *tokens, result = lines(ask(stream=True, logprobs=True))
    assert [each["text"] for each in tokens] == [each["logprobs"][0]["token"] for each in tokens]
    assert result["logprobs"] == [each for token in tokens for each in token["logprobs"]]


def test_the_lines_of_a_stream_fit_the_document(app, ask, runtime):
    answers = iter(['{"name": "John"}', JOHN])
    runtime.answers = lambda prompt: next(answers)
    sent = lines(ask(stream=True, json_schema=PERSON, max_attempts=2, logprobs=True))
    assert set(kinds(sent)) == {"loading", "token", "result"}
    where = ("POST", "/v1/inference", 200, "application/x-ndjson")
    contract = Contract(document_of(app))
    assert contract.violations(*where, sent) == []
    for line in sent:
        assert contract.violations(*where, [{**line, "undeclared": 1}]) != []
