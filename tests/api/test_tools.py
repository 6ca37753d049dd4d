"""Tools in chats: choices among several, formats beside them, and replies of any shape."""

from __future__ import annotations

import json

import pytest

from mes.api.openapi.docs_page import document_of
from mes.domain import ToolCall
from tests.api.conftest import KEY
from tests.api.test_chat import AS_PERSON, HELLO, WEATHER, deltas, events, refusal
from tests.api.test_inference import JOHN, PERSON
from tests.fakes import eventually
from tests.support.contract import Contract

MODEL = "smollm2:135m"
TIME = {
    "type": "function",
    "function": {
        "name": "time",
        "description": "The time in a zone",
        "parameters": {
            "type": "object",
            "properties": {"zone": {"$ref": "#/$defs/Zone"}},
            "required": ["zone"],
            "$defs": {"Zone": {"enum": ["utc", "local"]}},
        },
    },
}
BOTH = [WEATHER, TIME]
IN_ROME = ToolCall("call_1", "weather", {"city": "Rome"})
IN_UTC = ToolCall("call_2", "time", {"zone": "utc"})
WRITTEN = '{"name": "weather", "arguments": {"city": "Rome"}}'


# pydantic writes this for Decimal.
LOOK_AROUND = {"type": "string", "pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"}


@pytest.fixture
def without_tools(runtime):
    """Make the models of the catalog ones that cannot call tools."""
    runtime.capabilities = ("completion",)


@pytest.fixture
def chat(app, client):
    eventually(lambda: app.extensions["mes"].runtime_status.current().pulled[MODEL].capabilities)

    def post(messages=HELLO, **fields):
        document = {"model": MODEL, "messages": messages, **fields}
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        return client.post("/v1/chat/completions", data=json.dumps(document), headers=headers)

    return post


@pytest.fixture
def reply_with(runtime):
    """Let the runtime reply with these texts and calls, one after the other."""

    def script(*replies):
        texts = iter([text for text, *_ in replies])
        calls = iter([tuple(calls) for _, *calls in replies])
        runtime.answers = lambda prompt: next(texts)
        runtime.calls = lambda prompt: next(calls)

    return script


def message_of(answer):
    return answer["choices"][0]["message"]


def called(answer):
    """Return name and arguments of each call in the message."""
    functions = [call["function"] for call in message_of(answer).get("tool_calls", [])]
    return [(each["name"], json.loads(each["arguments"])) for each in functions]


class TestACallIsRequiredOfAModelThatCallsTools:
    @pytest.mark.parametrize("choice", ["required", "any"])
    def test_all_tools_are_offered(self, chat, reply_with, runtime, choice):
        reply_with(("", IN_UTC))
        answer = chat(tools=BOTH, tool_choice=choice).get_json()
        assert called(answer) == [("time", {"zone": "utc"})]
        assert answer["choices"][0]["finish_reason"] == "tool_calls"
        assert answer["mes"]["structured"]["verdict"] == "valid"
        assert runtime.prompts[-1].tools == tuple(BOTH)
        assert runtime.prompts[-1].format is None

    def test_a_missing_call_is_asked_for_again(self, chat, reply_with, runtime):
        reply_with(("I do not know.",), ("", IN_ROME))
        answer = chat(tools=BOTH, tool_choice="required").get_json()
        assert called(answer) == [("weather", {"city": "Rome"})]
        report = answer["mes"]["structured"]
        assert (report["first_verdict"], report["verdict"]) == ("no_tool_call", "valid")
        again = runtime.prompts[-1].question
        assert "I do not know." in again
        assert "no function was called; call one of weather, time" in again

    def test_an_invalid_call_is_asked_for_again(self, chat, reply_with, runtime):
        reply_with(("", ToolCall("call_1", "time", {"zone": "mars"})), ("", IN_UTC))
        answer = chat(tools=BOTH, tool_choice="required").get_json()
        assert called(answer) == [("time", {"zone": "utc"})]
        assert answer["mes"]["structured"]["first_verdict"] == "schema_violation"
        assert '{"zone": "mars"}' in runtime.prompts[-1].question

    def test_a_call_that_stays_missing_is_the_verdict(self, chat, reply_with):
        reply_with(("No.",), ("No!",))
        facts = chat(tools=BOTH, tool_choice="required").get_json()["mes"]
        assert (facts["success"], facts["code"]) == (False, "no_tool_call")
        assert facts["error"] == "no function was called; call one of weather, time"

    def test_a_stream_has_one_attempt_and_the_verdict(self, chat, reply_with):
        reply_with(("No.",))
        *chunks, last = events(chat(tools=BOTH, tool_choice="required", stream=True))
        assert deltas(chunks) == [{"role": "assistant", "content": "No."}]
        assert last["mes"]["code"] == "no_tool_call"
        assert last["choices"][0]["finish_reason"] == "stop"

    def test_an_answer_that_is_cut_off_gets_more_tokens(self, chat, reply_with, runtime):
        runtime.finish_reason = "length"
        reply_with(("Let me",), ("", IN_ROME))
        chat(tools=BOTH, tool_choice="required")
        limits = [prompt.options["num_predict"] for prompt in runtime.prompts]
        assert limits == [77, 154]


@pytest.mark.usefixtures("without_tools")
class TestACallIsRequiredOfAnyOtherModel:
    def test_one_grammar_is_for_all_tools(self, chat, reply_with, runtime):
        reply_with((WRITTEN,))
        answer = chat(tools=BOTH, tool_choice="required").get_json()
        assert called(answer) == [("weather", {"city": "Rome"})]
        assert message_of(answer)["content"] is None
        assert answer["choices"][0]["finish_reason"] == "tool_calls"
        assert answer["mes"]["structured"]["mode"] == "grammar"
        assert [each["verdict"] for each in answer["mes"]["tool_calls"]] == ["valid"]
        prompt = runtime.prompts[-1]
        assert prompt.tools == ()
        alternatives = prompt.format["anyOf"]
        assert [each["properties"]["name"] for each in alternatives] == [
            {"const": "weather"},
            {"const": "time"},
        ]

    def test_references_of_the_parameters_still_lead_to_their_definitions(
        self, chat, reply_with, runtime
    ):
        reply_with((WRITTEN,))
        chat(tools=BOTH, tool_choice="required")
        definition = runtime.prompts[-1].format["$defs"]["arguments_1"]
        reference = definition["properties"]["zone"]["$ref"]
        assert reference == "#/$defs/arguments_1/$defs/Zone"

    def test_the_model_is_told_about_the_functions(self, chat, reply_with, runtime):
        reply_with((WRITTEN,))
        chat(tools=BOTH, tool_choice="required")
        question = runtime.prompts[-1].question
        assert question.startswith("Hello")
        assert "- weather(city): How warm it is\n- time(zone): The time in a zone" in question

    def test_invalid_arguments_are_asked_for_again(self, chat, reply_with, runtime):
        reply_with(('{"name": "time", "arguments": {"zone": "mars"}}',), (WRITTEN,))
        answer = chat(tools=BOTH, tool_choice="required").get_json()
        assert called(answer) == [("weather", {"city": "Rome"})]
        assert answer["mes"]["structured"]["first_verdict"] == "schema_violation"
        assert "/arguments/zone" in runtime.prompts[-1].question

    @pytest.mark.parametrize(
        ("text", "verdict"),
        [
            ("No.", "not_json"),
            ("", "empty"),
            ('{"name": "rain", "arguments": {}}', "schema_violation"),
            ('{"name": "weather"}', "schema_violation"),
            ('{"name": "time", "arguments": {"zone": 3}}', "schema_violation"),
        ],
    )
    @pytest.mark.parametrize("stream", [False, True])
    def test_a_text_that_is_no_valid_call_is_a_verdict(
        self, chat, reply_with, text, verdict, stream
    ):
        reply_with((text,), (text,))
        response = chat(tools=BOTH, tool_choice="required", stream=stream)
        last = events(response)[-1] if stream else response.get_json()
        assert (last["mes"]["success"], last["mes"]["code"]) == (False, verdict)

    def test_a_stream_has_the_whole_call_at_its_end(self, chat, reply_with, runtime):
        reply_with((WRITTEN,))
        first, last = events(chat(tools=BOTH, tool_choice="required", stream=True))
        (call,) = first["choices"][0]["delta"]["tool_calls"]
        assert call["index"] == 0
        assert call["function"] == {"name": "weather", "arguments": '{"city": "Rome"}'}
        assert "content" not in first["choices"][0]["delta"]
        assert last["choices"][0]["finish_reason"] == "tool_calls"

    def test_a_strange_schema_leaves_the_grammar_of_the_other_tools(
        self, chat, reply_with, runtime
    ):
        reply_with(('{"name": "buy", "arguments": {"price": "1"}}',))
        broken = {"name": "buy", "parameters": {"type": "strin"}}
        tools = [WEATHER, {"type": "function", "function": broken}]
        facts = chat(tools=tools, tool_choice="required").get_json()["mes"]
        assert [each["verdict"] for each in facts["tool_calls"]] == ["undecided"]
        assert facts["success"] is True
        alternatives = runtime.prompts[-1].format["anyOf"]
        arguments = [each["properties"]["arguments"] for each in alternatives]
        assert arguments == [{"$ref": "#/$defs/arguments_0"}, {"type": "object"}]

    def test_without_json_mode_the_schema_is_in_the_prompt(self, chat, reply_with, runtime):
        reply_with((f"Sure:\n```json\n{WRITTEN}\n```",))
        answer = chat(model="org/prose:q4", tools=BOTH, tool_choice="required").get_json()
        assert called(answer) == [("weather", {"city": "Rome"})]
        assert runtime.prompts[-1].format is None
        assert '"const":"time"' in runtime.prompts[-1].question

    def test_optional_tools_are_refused(self, chat):
        for choice in ("auto", None):
            assert refusal(chat(tools=BOTH, tool_choice=choice))["param"] == "tools"

    def test_calls_and_results_before_are_plain_turns(self, chat, reply_with, runtime):
        reply_with(('{"city": "Rome"}',), ('{"city": "Paris"}',))
        forced = {"tools": [WEATHER], "tool_choice": "required"}
        message = message_of(chat(**forced).get_json())
        (call,) = message["tool_calls"]
        result = {"role": "tool", "tool_call_id": call["id"], "content": "Rome is wrong"}
        again = {"role": "user", "content": "Try again"}
        assert called(chat([*HELLO, message, result, again], **forced).get_json()) == [
            ("weather", {"city": "Paris"})
        ]
        turns = [(each.role, each.content) for each in runtime.prompts[-1].messages]
        assert turns[1] == ("assistant", WRITTEN)
        assert turns[2][1].startswith("Result of the function weather:\nRome is wrong\n\nTry again")
        assert len(turns) == 3


class TestAFormatBesideTools:
    def test_tools_are_offered_without_a_grammar(self, chat, reply_with, runtime):
        reply_with(("", IN_ROME))
        answer = chat(tools=BOTH, response_format=AS_PERSON).get_json()
        assert called(answer) == [("weather", {"city": "Rome"})]
        assert answer["mes"]["success"] is True
        prompt = runtime.prompts[-1]
        assert (prompt.tools, prompt.format) == (tuple(BOTH), None)
        assert '"required":["name","age"]' in prompt.question

    def test_a_final_answer_is_validated(self, chat, reply_with):
        reply_with((f"Here it is: {JOHN}",))
        answer = chat(tools=BOTH, response_format=AS_PERSON).get_json()
        assert json.loads(message_of(answer)["content"]) == json.loads(JOHN)
        report = answer["mes"]["structured"]
        assert (report["verdict"], report["mode"], report["extraction"]) == (
            "valid",
            "tools",
            "prose",
        )

    def test_an_invalid_answer_is_asked_for_again_under_the_grammar(
        self, chat, reply_with, runtime
    ):
        reply_with(("John is 25.",), (JOHN,))
        answer = chat(tools=BOTH, response_format=AS_PERSON).get_json()
        assert message_of(answer)["content"] == JOHN
        report = answer["mes"]["structured"]
        assert (report["first_verdict"], report["mode"]) == ("not_json", "grammar")
        second = runtime.prompts[-1]
        assert (second.tools, second.format) == ((), PERSON)

    def test_a_stream_has_the_verdict_on_its_text(self, chat, reply_with):
        reply_with(("John is 25.",))
        *_, last = events(chat(tools=BOTH, response_format=AS_PERSON, stream=True))
        assert last["mes"]["code"] == "not_json"

    def test_a_required_call_needs_no_format(self, chat, reply_with, runtime):
        reply_with(("", IN_ROME))
        fields = {"tools": BOTH, "tool_choice": "required", "response_format": AS_PERSON}
        answer = chat(**fields).get_json()
        assert called(answer) == [("weather", {"city": "Rome"})]
        assert runtime.prompts[-1].question == "Hello"
        assert answer["mes"]["ignored"] == ["response_format"]


class TestOneCallAtATime:
    @pytest.mark.parametrize("choice", ["auto", "required"])
    def test_further_calls_are_left_out_and_counted(self, chat, reply_with, choice):
        reply_with(("", IN_ROME, IN_UTC, IN_UTC))
        fields = {"tools": BOTH, "tool_choice": choice, "parallel_tool_calls": False}
        answer = chat(**fields).get_json()
        assert called(answer) == [("weather", {"city": "Rome"})]
        assert answer["mes"]["dropped_tool_calls"] == 2
        assert len(answer["mes"]["tool_calls"]) == 1

    def test_also_in_streams(self, chat, reply_with):
        reply_with(("", IN_ROME, IN_UTC))
        first, last = events(chat(tools=BOTH, parallel_tool_calls=False, stream=True))
        assert len(first["choices"][0]["delta"]["tool_calls"]) == 1
        assert last["mes"]["dropped_tool_calls"] == 1

    def test_several_calls_come_back_otherwise(self, chat, reply_with):
        reply_with(("", IN_ROME, IN_UTC))
        answer = chat(tools=BOTH, parallel_tool_calls=True).get_json()
        assert len(called(answer)) == 2
        assert "dropped_tool_calls" not in answer["mes"]


class TestAForcedFunction:
    def test_its_description_reaches_the_model(self, chat, reply_with, runtime):
        reply_with(('{"city": "Rome"}',))
        chat(tools=BOTH, tool_choice={"type": "function", "function": {"name": "weather"}})
        assert "How warm it is" in runtime.prompts[-1].question
        assert "The time" not in runtime.prompts[-1].question

    def test_its_call_has_a_verdict(self, chat, reply_with):
        reply_with(('{"town": "Rome"}',), ('{"town": "Rome"}',))
        facts = chat(tools=[WEATHER], tool_choice="required").get_json()["mes"]
        assert facts["code"] == "schema_violation"
        assert [each["verdict"] for each in facts["tool_calls"]] == ["schema_violation"]

    def test_a_call_by_the_model_itself_is_accepted(self, chat, reply_with):
        reply_with(("", IN_ROME))
        answer = chat(tools=[WEATHER], tool_choice="required").get_json()
        assert called(answer) == [("weather", {"city": "Rome"})]
        assert answer["mes"]["structured"]["verdict"] == "valid"

    def test_a_call_by_the_model_itself_is_streamed(self, chat, reply_with):
        reply_with(("", IN_ROME))
        chunks = events(chat(tools=[WEATHER], tool_choice="required", stream=True))
        pieces = [each["tool_calls"][0]["function"] for each in deltas(chunks) if each]
        assert "".join(each["arguments"] for each in pieces) == '{"city": "Rome"}'


class TestSchemasOfTools:
    @pytest.mark.parametrize(
        "parameters",
        [
            {"type": "strin"},
            {"$schema": "https://example.com/dialect"},
            {"$ref": "http://elsewhere.example/x"},
            {"type": "object", "properties": {"a": {"pattern": "("}}},
        ],
    )
    def test_a_strange_schema_costs_the_verdicts_of_its_tool_only(
        self, chat, reply_with, runtime, parameters
    ):
        reply_with(("", ToolCall("call_1", "buy", {"price": "1"}), IN_ROME))
        strange = {"type": "function", "function": {"name": "buy", "parameters": parameters}}
        facts = chat(tools=[strange, WEATHER]).get_json()["mes"]
        assert [each["verdict"] for each in facts["tool_calls"]] == ["undecided", "valid"]
        assert facts["tool_calls"][0]["errors"][0]["detail"]
        assert facts["success"] is True
        assert runtime.prompts[-1].tools[0]["function"]["parameters"] == parameters

    @pytest.mark.parametrize("choice", ["auto", "required"])
    def test_look_around_refuses_no_request(self, chat, reply_with, choice):
        function = {"name": "buy", "parameters": {"properties": {"price": LOOK_AROUND}}}
        buy = {"type": "function", "function": function}
        reply_with(("", ToolCall("call_1", "buy", {"price": "1.5"})))
        facts = chat(tools=[buy, WEATHER], tool_choice=choice).get_json()["mes"]
        assert [each["verdict"] for each in facts["tool_calls"]] == ["valid"]

    def test_a_tool_may_be_listed_twice(self, chat, reply_with, runtime):
        reply_with(("", IN_ROME))
        assert called(chat(tools=[WEATHER, TIME, WEATHER]).get_json())
        assert runtime.prompts[-1].tools == (WEATHER, TIME)

    def test_two_functions_with_one_name_are_refused(self, chat):
        other = {"type": "function", "function": {"name": "weather"}}
        error = refusal(chat(tools=[WEATHER, other]))
        assert error["param"] == "tools[1].function.name"

    def test_too_many_tools_are_refused_with_the_limit(self, chat):
        few_bytes = {"function": {"name": "a"}}
        assert "at most 512 elements" in refusal(chat(tools=[few_bytes] * 513))["message"]

    def test_no_tools_are_the_same_as_none(self, chat, runtime):
        for fields in ({"tools": []}, {"tools": None}, {"tools": [], "tool_choice": "none"}):
            assert chat(tool_choice=fields.pop("tool_choice", None), **fields).status_code == 200
            assert runtime.prompts[-1].tools == ()


class TestChoices:
    def test_allowed_tools_are_those_that_are_offered(self, chat, reply_with, runtime):
        reply_with(("", IN_UTC))
        names = [{"type": "function", "function": {"name": "time"}}]
        allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": names}}
        chat(tools=BOTH, tool_choice=allowed)
        assert runtime.prompts[-1].tools == (TIME,)

    @pytest.mark.parametrize(
        "choice",
        [
            {"type": "function", "function": {"name": "rain"}},
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}},
            {"type": "function", "function": {}},
            ["required"],
            "perhaps",
        ],
    )
    def test_a_choice_that_cannot_be_honoured_is_refused(self, chat, choice):
        assert refusal(chat(tools=BOTH, tool_choice=choice))["param"] == "tool_choice"


class TestTheNativeEndpoint:
    def test_a_call_has_its_arguments_and_its_verdict(self, ask, reply_with, runtime):
        reply_with(("", IN_ROME))
        answer = ask(tools=BOTH).get_json()
        assert answer["tool_calls"] == [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "weather", "arguments": {"city": "Rome"}},
                "verdict": "valid",
                "errors": [],
            }
        ]
        assert answer["success"] is True
        assert runtime.prompts[-1].tools == tuple(BOTH)

    def test_a_prompt_becomes_a_conversation(self, ask, reply_with, runtime):
        reply_with(("", IN_ROME))
        ask(tools=BOTH, system_prompt="Be brief.")
        turns = [(each.role, each.content) for each in runtime.prompts[-1].messages]
        assert turns == [("system", "Be brief."), ("user", "The capital of France?")]

    def test_its_calls_can_be_sent_back_with_their_results(self, ask, reply_with, runtime):
        reply_with(("", IN_ROME), ("31 degrees.",))
        calls = ask(tools=BOTH).get_json()["tool_calls"]
        called = {"role": "assistant", "content": "", "tool_calls": calls}
        result = {"role": "tool", "tool_call_id": "call_1", "content": "31"}
        answer = ask(prompt=None, messages=[*HELLO, called, result], tools=BOTH).get_json()
        assert answer["output"] == "31 degrees."
        *_, call, told = runtime.prompts[-1].messages
        assert (call.tool_calls, told.tool_name) == ((IN_ROME,), "weather")

    def test_a_forced_function_is_the_answer(self, ask, reply_with, runtime):
        reply_with(('{"city": "Rome"}',))
        answer = ask(tools=[WEATHER], tool_choice="required").get_json()
        assert answer["parsed"] == {"city": "Rome"}
        (call,) = answer["tool_calls"]
        assert call["function"] == {"name": "weather", "arguments": {"city": "Rome"}}
        assert runtime.prompts[-1].format == WEATHER["function"]["parameters"]

    def test_one_call_and_a_missing_call(self, ask, reply_with):
        reply_with(("", IN_ROME, IN_UTC), ("No.",))
        answer = ask(tools=BOTH, parallel_tool_calls=False).get_json()
        assert (len(answer["tool_calls"]), answer["dropped_tool_calls"]) == (1, 1)
        fields = {"tools": BOTH, "tool_choice": "any", "max_attempts": 1}
        missing = ask(**fields, json_schema=PERSON).get_json()
        assert missing["code"] == "no_tool_call"
        assert missing["ignored"] == ["json_schema"]

    def test_a_stream_ends_with_the_calls(self, ask, reply_with):
        reply_with(("Let me see.", IN_ROME))
        lines = ask(tools=BOTH, stream=True).get_data().splitlines()
        result = json.loads(lines[-1])
        assert result["type"] == "result"
        assert result["tool_calls"][0]["function"]["name"] == "weather"

    @pytest.mark.parametrize(
        ("fields", "pointer"),
        [
            ({"tools": [{"function": {}}]}, "/tools/0/function/name"),
            ({"tool_choice": "required"}, "/tool_choice"),
            ({"tools": BOTH, "tool_choice": "rain"}, "/tool_choice"),
            ({"tools": [WEATHER], "parallel_tool_calls": 1}, "/parallel_tool_calls"),
            ({"tools": [{"type": "custom", "function": {"name": "a"}}]}, "/tools/0/type"),
        ],
    )
    def test_a_mistake_is_named(self, ask, fields, pointer):
        response = ask(**fields)
        assert response.status_code == 422
        assert response.get_json()["errors"][0]["pointer"] == pointer

    def test_an_answer_without_tools_has_no_new_members(self, ask):
        assert {"tool_calls", "dropped_tool_calls", "ignored"}.isdisjoint(ask().get_json())


class TestRepliesOfAnyShape:
    """The runtime may send calls where a text was requested, both, neither, or repetitions."""

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"response_format": AS_PERSON},
            {"tools": [WEATHER]},
            {"tools": BOTH},
            {"tools": BOTH, "response_format": AS_PERSON},
            {"tools": BOTH, "tool_choice": "required"},
            {"tools": [WEATHER], "tool_choice": "required"},
            {"tools": BOTH, "tool_choice": "none"},
        ],
    )
    @pytest.mark.parametrize(
        "reply",
        [
            ("", IN_ROME),
            (JOHN, IN_ROME),
            ("",),
            ("", IN_ROME, IN_ROME),
            ("", ToolCall("", "", {})),
            (" ", ToolCall("call_1", "weather", "{")),
        ],
    )
    def test_each_is_answered_with_a_verdict(self, app, chat, reply_with, fields, reply, stream):
        reply_with(*[reply] * 4)
        response = chat(stream=stream, **fields)
        assert response.status_code == 200
        last = events(response)[-1] if stream else response.get_json()
        assert isinstance(last["mes"]["success"], bool)
        name = "ChatCompletionChunk" if stream else "ChatCompletion"
        assert Contract(document_of(app)).violations_of(name, last) == []

    def test_a_call_where_json_was_requested_is_no_success(self, chat, reply_with):
        reply_with(*[("", IN_ROME)] * 2)
        facts = chat(response_format=AS_PERSON).get_json()["mes"]
        assert (facts["success"], facts["code"]) == (False, "empty")
        assert [each["verdict"] for each in facts["tool_calls"]] == ["schema_violation"]

    def test_neither_text_nor_call_is_empty(self, chat, reply_with):
        reply_with(("",))
        facts = chat(tools=BOTH).get_json()["mes"]
        assert (facts["success"], facts["code"]) == (False, "empty")
