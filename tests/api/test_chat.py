"""`POST /v1/chat/completions` over a fake runtime."""

from __future__ import annotations

import json

import pytest

from mes import errors
from mes.api.openapi.docs_page import document_of
from mes.domain import ToolCall
from mes.domain.capabilities import not_capable
from tests.api.conftest import KEY
from tests.api.test_inference import JOHN, PERSON
from tests.support.contract import Contract

PIXEL = "iVBORw0KGgo="
HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "How warm it is",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
CALLED = ToolCall("call_1", "weather", {"city": "Rome"})
AS_PERSON = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}


@pytest.fixture
def chat(client):
    def post(messages=HELLO, **fields):
        document = {"model": "smollm2:135m", "messages": messages, **fields}
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        return client.post("/v1/chat/completions", data=json.dumps(document), headers=headers)

    return post


def events(response):
    """Return the chunks of a stream that succeeded."""
    assert response.mimetype == "text/event-stream"
    *chunks, done, nothing = response.get_data(as_text=True).split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    return [json.loads(each.removeprefix("data: ")) for each in chunks]


def deltas(chunks):
    return [each["choices"][0]["delta"] for each in chunks if each["choices"]]


def refusal(response, status=400):
    assert response.status_code == status
    return response.get_json()["error"]


def test_a_conversation_is_answered_in_openais_format(chat, runtime):
    response = chat(seed=7, temperature=0)
    answer = response.get_json()
    assert answer["object"] == "chat.completion"
    assert answer["id"] == f"chatcmpl-{response.headers['X-Request-ID']}"
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Paris", "refusal": None}
    assert (choice["finish_reason"], choice["logprobs"]) == ("stop", None)
    assert answer["usage"] == {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    assert answer["mes"]["provenance"]["seed"] == 7
    assert runtime.prompts[-1].options["temperature"] == 0


def test_the_response_has_the_models_id_in_the_catalog(chat):
    assert chat(model="SmolLM2:135M").get_json()["model"] == "smollm2:135m"
    *chunks, _ = events(chat(model="SmolLM2:135M", stream=True))
    assert {each["model"] for each in chunks} == {"smollm2:135m"}


def test_a_stream_has_the_same_in_chunks(chat, runtime):
    runtime.answers = lambda prompt: "Paris, of course"
    whole = chat(seed=7).get_json()
    *chunks, last = events(chat(seed=7, stream=True))
    assert deltas(chunks) == [
        {"role": "assistant", "content": "Paris,"},
        {"content": " of"},
        {"content": " course"},
    ]
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["mes"]["provenance"] == whole["mes"]["provenance"]
    assert last["system_fingerprint"] == whole["system_fingerprint"]
    assert "usage" not in last


def test_an_empty_answer_has_a_role_too(chat, runtime):
    runtime.answers = lambda prompt: ""
    assert deltas(events(chat(stream=True))) == [{"role": "assistant"}]


def test_the_usage_is_in_the_last_chunk_if_requested(chat):
    *chunks, last = events(chat(stream=True, stream_options={"include_usage": True}))
    assert {json.dumps(each["usage"]) for each in chunks} == {"null"}
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 15


def test_reasoning_is_apart_from_the_content(chat, runtime):
    runtime.reasoning = "Let me think."
    message = chat(reasoning_effort="low").get_json()["choices"][0]["message"]
    assert (message["content"], message["reasoning"]) == ("Paris", "Let me think.")
    assert runtime.prompts[-1].think == "low"


@pytest.mark.parametrize(("effort", "think"), [("none", False), ("minimal", False), (None, False)])
def test_without_effort_nothing_is_thought(chat, runtime, effort, think):
    chat(reasoning_effort=effort)
    assert runtime.prompts[-1].think is think


def test_roles_parts_and_images_are_converted_for_the_runtime(chat, runtime):
    picture = {"url": f"data:image/png;base64,{PIXEL}", "detail": "low"}
    parts = [{"type": "text", "text": "What is"}, {"type": "text", "text": "this?"}]
    chat(
        [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [*parts, {"type": "image_url", "image_url": picture}]},
        ]
    )
    system, user = runtime.prompts[-1].messages
    assert (system.role, system.content) == ("system", "Be brief.")
    assert (user.content, user.images) == ("What is\nthis?", (PIXEL,))


def test_the_message_of_a_response_can_be_sent_back_unchanged(chat, runtime):
    runtime.reasoning = "Hm."
    message = chat().get_json()["choices"][0]["message"]
    assert chat([*HELLO, message, *HELLO]).status_code == 200
    assert [each.content for each in runtime.prompts[-1].messages] == ["Hello", "Paris", "Hello"]


class TestFormats:
    def test_an_answer_is_validated_against_its_schema(self, chat, runtime):
        runtime.answers = lambda prompt: JOHN
        answer = chat(response_format=AS_PERSON).get_json()
        assert answer["choices"][0]["message"]["content"] == JOHN
        assert answer["mes"]["structured"]["verdict"] == "valid"
        assert runtime.prompts[-1].format == PERSON

    def test_the_content_is_the_json_alone_if_it_was_in_prose(self, chat, runtime):
        runtime.answers = lambda prompt: f"Sure:\n```json\n{JOHN}\n```"
        answer = chat(response_format=AS_PERSON).get_json()
        assert json.loads(answer["choices"][0]["message"]["content"]) == json.loads(JOHN)

    def test_an_answer_that_violates_its_schema_is_reported_in_mes(self, chat, runtime):
        runtime.answers = lambda prompt: '{"name": 3}'
        answer = chat(response_format=AS_PERSON, mes={"max_attempts": 1}).get_json()
        assert answer["choices"][0]["message"]["content"] == '{"name": 3}'
        assert answer["mes"]["success"] is False
        assert answer["mes"]["code"] == "schema_violation"

    def test_json_object_accepts_any_object(self, chat, runtime):
        runtime.answers = lambda prompt: "{}"
        assert chat(response_format={"type": "json_object"}).get_json()["mes"]["success"]
        assert runtime.prompts[-1].format == {"type": "object"}

    def test_text_has_no_schema(self, chat, runtime):
        assert chat(response_format={"type": "text"}).get_json()["mes"]["structured"] is None

    def test_an_invalid_schema_is_refused_with_its_place(self, chat):
        wrong = {"type": "json_schema", "json_schema": {"schema": {"type": "strin"}}}
        error = refusal(chat(response_format=wrong))
        assert error["code"] == "schema_invalid"
        assert error["param"] == "response_format.json_schema.schema.type"
        assert error["errors"][0]["pointer"] == "/response_format/json_schema/schema/type"
        assert error["message"].startswith("schema is not a valid JSON Schema: /response_format/")

    def test_invalid_parameters_of_a_required_function_are_refused_with_their_place(self, chat):
        broken = {"name": "broken", "parameters": {"type": "strin"}}
        tools = [WEATHER, {"type": "function", "function": broken}]
        named = {"type": "function", "function": {"name": "broken"}}
        error = refusal(chat(tools=tools, tool_choice=named))
        assert error["code"] == "schema_invalid"
        assert error["param"] == "tools[1].function.parameters.type"
        assert error["errors"][0]["pointer"] == "/tools/1/function/parameters/type"
        start = "parameters is not a valid JSON Schema: /tools/1/function/parameters/type: "
        assert error["message"].startswith(start)


class TestTools:
    def test_a_call_of_the_model_is_passed_on_with_its_verdict(self, chat, runtime):
        runtime.answers, runtime.tool_calls = lambda prompt: "", (CALLED,)
        answer = chat(tools=[WEATHER]).get_json()
        (choice,) = answer["choices"]
        assert choice["finish_reason"] == "tool_calls"
        (call,) = choice["message"]["tool_calls"]
        assert (call["id"], call["type"]) == ("call_1", "function")
        assert call["function"] == {"name": "weather", "arguments": '{"city": "Rome"}'}
        assert answer["mes"]["tool_calls"] == [{"id": "call_1", "verdict": "valid", "errors": []}]
        assert runtime.prompts[-1].tools == (WEATHER,)

    @pytest.mark.parametrize(
        "call", [ToolCall("call_1", "weather", {"town": "Rome"}), ToolCall("call_1", "time", {})]
    )
    def test_a_call_that_fits_no_tool_is_passed_on_with_its_violation(self, chat, runtime, call):
        runtime.tool_calls = (call,)
        facts = chat(tools=[WEATHER]).get_json()["mes"]
        assert (facts["success"], facts["code"]) == (False, "schema_violation")
        assert facts["tool_calls"][0]["errors"][0]["detail"]

    def test_calls_come_whole_in_one_chunk(self, chat, runtime):
        runtime.answers, runtime.tool_calls = lambda prompt: "", (CALLED, CALLED)
        first, last = events(chat(tools=[WEATHER], stream=True))
        assert [each["index"] for each in first["choices"][0]["delta"]["tool_calls"]] == [0, 1]
        assert last["choices"][0]["finish_reason"] == "tool_calls"

    def test_the_result_of_a_call_gets_the_name_of_its_tool(self, chat, runtime):
        runtime.tool_calls = (CALLED,)
        message = chat(tools=[WEATHER]).get_json()["choices"][0]["message"]
        result = {"role": "tool", "tool_call_id": "call_1", "content": "31 degrees"}
        assert chat([*HELLO, message, result], tools=[WEATHER]).status_code == 200
        *_, call, answer = runtime.prompts[-1].messages
        assert call.tool_calls == (CALLED,)
        assert (answer.tool_call_id, answer.tool_name) == ("call_1", "weather")

    @pytest.mark.parametrize(
        "choice", ["required", {"type": "function", "function": {"name": "weather"}}]
    )
    def test_a_required_function_is_constrained_like_a_schema(self, chat, runtime, choice):
        runtime.answers = lambda prompt: '{"city": "Rome"}'
        answer = chat(tools=[WEATHER], tool_choice=choice, parallel_tool_calls=False).get_json()
        (choice,) = answer["choices"]
        assert choice["finish_reason"] == "tool_calls"
        assert choice["message"]["content"] is None
        (call,) = choice["message"]["tool_calls"]
        assert call["function"] == {"name": "weather", "arguments": '{"city": "Rome"}'}
        assert answer["mes"]["structured"]["verdict"] == "valid"
        prompt = runtime.prompts[-1]
        assert (prompt.tools, prompt.format) == ((), WEATHER["function"]["parameters"])

    def test_its_arguments_come_in_pieces(self, chat, runtime):
        runtime.answers = lambda prompt: '{"city": "Rome"}'
        choice = {"type": "function", "function": {"name": "weather"}}
        stream_deltas = deltas(events(chat(tools=[WEATHER], tool_choice=choice, stream=True)))
        pieces = [each["tool_calls"][0] for each in stream_deltas if each]
        assert stream_deltas[0]["role"] == "assistant"
        assert pieces[0]["function"]["name"] == "weather"
        assert [each.get("id") for each in pieces].count(None) == len(pieces) - 1
        assert "".join(each["function"]["arguments"] for each in pieces) == '{"city": "Rome"}'

    def test_with_the_choice_none_no_tool_is_sent_to_the_model(self, chat, runtime):
        chat(tools=[WEATHER], tool_choice="none")
        assert runtime.prompts[-1].tools == ()


class TestRefusals:
    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"n": 9}, "n"),
            ({"logit_bias": {"50256": -100}}, "logit_bias"),
            ({"functions": []}, "functions"),
            ({"repeat_penalty": 1, "repetition_penalty": 1.1}, "repeat_penalty"),
            ({"reasoning_effort": "low", "reasoning": {"effort": "high"}}, "reasoning"),
            ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
            ({"chat_template_kwargs": {"date": "now"}}, "chat_template_kwargs.date"),
            ({"stop": ["x"] * 65}, "stop"),
            ({"stop": [""]}, "stop"),
            ({"seed": 2**63}, "seed"),
            ({"use_beam_search": True}, "use_beam_search"),
            ({"guided_json": {"type": "object"}}, "guided_json"),
            ({"temperature": 3}, "temperature"),
            ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
            ({"tool_choice": "required"}, "tool_choice"),
            ({"tools": [WEATHER], "tool_choice": "perhaps"}, "tool_choice"),
            ({"reasoning_effort": "huge"}, "reasoning_effort"),
            ({"stream": True, "mes": {"max_attempts": 2}}, "mes.max_attempts"),
            ({"mes": {"speed": 11}}, "mes.speed"),
            ({"mes": {"timeout": 1e6}}, "mes.timeout"),
            ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ],
    )
    def test_an_unsupported_parameter_is_named(self, chat, fields, param):
        error = refusal(chat(**fields))
        assert error["type"] == "invalid_request_error"
        assert error["param"] == param
        assert error["code"] == "request_invalid"

    @pytest.mark.parametrize(
        ("turn", "param"),
        [
            ({"role": "king", "content": "Hello"}, "messages[0].role"),
            ({"role": "user"}, "messages[0].content"),
            ({"role": "user", "content": 5}, "messages[0].content"),
            ({"role": "user", "content": [{"type": "input_audio"}]}, "messages[0].content[0]"),
            ({"role": "user", "content": "Hello", "name": 5}, "messages[0].name"),
            ({"role": "tool", "content": "31"}, "messages[0].tool_call_id"),
            ({"role": "tool", "content": "31", "tool_call_id": "x"}, "messages[0].tool_call_id"),
            ({"role": "assistant", "audio": {"id": "a"}}, "messages[0].audio"),
            ({"role": "assistant", "function_call": {"name": "f"}}, "messages[0].function_call"),
        ],
    )
    def test_an_invalid_message_is_named(self, chat, turn, param):
        assert refusal(chat([turn, *HELLO]))["param"] == param

    @pytest.mark.parametrize(
        "url", ["https://elsewhere.example/x.png", "data:image/png;base64,", 3]
    )
    def test_an_image_is_never_fetched(self, chat, url):
        part = {"type": "image_url", "image_url": {"url": url}}
        error = refusal(chat([{"role": "user", "content": [part]}]))
        assert error["param"] == "messages[0].content[0]"

    @pytest.mark.parametrize(
        ("error", "status", "kind"),
        [
            (errors.QueueFull("full", retry_after=3), 503, "server_error"),
            (errors.GenerationAborted("broke off"), 502, "server_error"),
            (errors.RequestInvalid("bad image"), 400, "invalid_request_error"),
        ],
    )
    def test_an_error_of_the_service_has_its_status(self, chat, runtime, error, status, kind):
        runtime.answers = lambda prompt: error
        for stream in (False, True):
            response = chat(stream=stream)
            sent = refusal(response, status)
            assert (sent["code"], sent["type"]) == (error.code, kind)
            assert sent["message"] == error.detail
            assert sent["request_id"] == response.headers["X-Request-ID"]
            assert response.headers.get("Retry-After") == ("3" if status == 503 else None)
            assert response.headers.get("X-Should-Retry") == ("false" if status == 400 else None)

    def test_a_prompt_that_is_too_long_has_openais_code(self, chat, runtime):
        mistake = errors.Mistake("/messages", "too long")
        too_long = errors.PromptTooLong("maximum context length", mistakes=(mistake,))
        runtime.answers = lambda prompt: too_long
        for stream in (False, True):
            error = refusal(chat(stream=stream))
            assert error["code"] == "context_length_exceeded"
            assert error["param"] == "messages"

    def test_a_stream_that_breaks_off_because_of_its_length_has_the_same_code(self, chat, runtime):
        runtime.breaks_off = errors.PromptTooLong("maximum context length")
        last = chat(stream=True).get_data(as_text=True).strip().split("\n\n")[-1]
        error = json.loads(last.removeprefix("data: "))["error"]
        assert error["code"] == "context_length_exceeded"

    @pytest.mark.parametrize("fields", [{"think": True}, {"model_id": "smollm2:135m"}])
    def test_a_parameter_of_the_other_api_is_named_as_it_was_written(self, chat, fields):
        (name,) = fields
        error = refusal(chat(**fields))
        assert (error["param"], error["errors"][0]["pointer"]) == (name, f"/{name}")

    def test_a_missing_capability_is_named_by_openais_parameters(self, chat, runtime):
        runtime.answers = lambda prompt: not_capable("thinking", "tag:latest", pointer="/think")
        for fields, name in (
            ({"reasoning_effort": "high"}, "reasoning_effort"),
            ({"reasoning": {"effort": "high"}}, "reasoning.effort"),
            ({"chat_template_kwargs": {"thinking": True}}, "chat_template_kwargs.thinking"),
        ):
            error = refusal(chat(**fields))
            assert error["param"] == name
            assert f"smollm2:135m cannot think; set {name} to " in error["message"]

    def test_a_stream_that_breaks_off_ends_with_the_error_and_is_not_done(self, chat, runtime):
        runtime.breaks_off = errors.GenerationAborted("broke off")
        text = chat(stream=True).get_data(as_text=True)
        last = text.strip().split("\n\n")[-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "generation_aborted"
        assert "[DONE]" not in text

    def test_errors_of_auth_and_routing_have_the_same_format(self, client):
        path = "/v1/chat/completions"
        assert refusal(client.post(path, json={}), 401)["type"] == "authentication_error"
        assert refusal(client.get(path), 405)["code"] == "method_not_allowed"

    def test_an_unknown_model_is_not_found(self, chat):
        for stream in (False, True):
            error = refusal(chat(model="nope", stream=stream), 404)
            assert (error["type"], error["code"]) == ("not_found_error", "model_not_found")


def test_probabilities_are_in_openais_format(chat, runtime):
    runtime.answers = lambda prompt: "Paris, France"
    options = {"logprobs": True, "top_logprobs": 1}
    logprobs = chat(**options).get_json()["choices"][0]["logprobs"]["content"]
    assert [each["token"] for each in logprobs] == ["Paris,", " France"]
    assert logprobs[0]["top_logprobs"] == [
        {"token": "Paris,", "logprob": -0.25, "bytes": list(b"Paris,")}
    ]
    *chunks, _ = events(chat(stream=True, **options))
    in_chunks = [token for each in chunks for token in each["choices"][0]["logprobs"]["content"]]
    assert in_chunks == logprobs


def test_the_probabilities_of_an_empty_answer_are_an_empty_list(chat, runtime):
    runtime.answers = lambda prompt: ""
    empty = {"content": [], "refusal": None}
    assert chat(logprobs=True).get_json()["choices"][0]["logprobs"] == empty
    (last,) = events(chat(logprobs=True, stream=True))
    assert last["choices"][0]["logprobs"] == empty
    assert chat().get_json()["choices"][0]["logprobs"] is None


def test_chunks_and_errors_of_a_stream_fit_the_document(app, chat, runtime):
    contract = Contract(document_of(app))
    runtime.tool_calls, runtime.reasoning = (CALLED,), "Hm."
    options = {"stream": True, "stream_options": {"include_usage": True}}
    for more in ({"tools": [WEATHER]}, {"logprobs": True, "top_logprobs": 2}):
        for chunk in events(chat(**options, **more)):
            assert contract.violations_of("ChatCompletionChunk", chunk) == []
    runtime.breaks_off = errors.GenerationAborted("broke off")
    last = chat(stream=True).get_data(as_text=True).strip().split("data: ")[-1]
    assert contract.violations_of("OpenAiError", json.loads(last)) == []
    assert contract.violations_of("ChatCompletionChunk", json.loads(last)) != []


class TestRunningUsage:
    OPTIONS = {"continuous_usage_stats": True}

    def test_each_chunk_has_the_tokens_so_far(self, app, chat, runtime):
        runtime.answers = lambda prompt: "Paris, of course"
        chunks = events(chat(stream=True, stream_options=self.OPTIONS))
        usages = [each["usage"] for each in chunks]
        assert [each["completion_tokens"] for each in usages] == [1, 2, 3, 5]
        assert [each["prompt_tokens"] for each in usages] == [0, 0, 0, 10]
        assert usages[-1] == {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        contract = Contract(document_of(app))
        assert [contract.violations_of("ChatCompletionChunk", each) for each in chunks] == [[]] * 4

    def test_the_last_chunk_is_added_only_if_it_is_requested(self, chat):
        options = {**self.OPTIONS, "include_usage": True}
        *_, last = events(chat(stream=True, stream_options=options))
        assert (last["choices"], last["usage"]["total_tokens"]) == ([], 15)

    def test_the_tokens_of_each_choice_are_counted(self, chat, runtime):
        runtime.answers = lambda prompt: "Paris, France"
        chunks = events(chat(n=2, stream=True, stream_options=self.OPTIONS))
        for index in (0, 1):
            usages = [each["usage"] for each in chunks if each["choices"][0]["index"] == index]
            assert [each["completion_tokens"] for each in usages] == [1, 2, 5]
