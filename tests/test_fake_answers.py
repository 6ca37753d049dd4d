"""The fake runtime: its answers have the format of recorded ones."""

import json

import pytest
import requests

from tests.support.recorded import all_exchanges, exchanges
from tests.support.service import FakeOllama
from tests.test_fake_ollama import A, B, generate

COMPARED_CASES = (
    "version", "root", "tags", "ps-empty", "show-missing", "load", "load-again", "ps-one",
    "generate-stream", "generate-nostream", "generate-system", "generate-length",
    "generate-schema", "generate-schema-truncated",
    "generate-schema-refused", "generate-schema-bool", "generate-format-bad",
    "generate-options-bad", "generate-keepalive-bad", "generate-missing-model",
    "generate-no-model", "generate-bad-name", "generate-think-unsupported", "generate-too-long",
    "generate-malformed", "generate-empty-body", "generate-logprobs", "chat-stream",
    "chat-nostream", "chat-schema",
    "chat-too-long", "chat-no-model", "chat-tools-unsupported", "load-second", "ps-two", "unload",
    "ps-right-after-unload", "unload-not-loaded", "unload-missing", "chat-unload", "not-found",
    "wrong-method", "embed-unsupported", "embed-missing",
)  # fmt: skip


def shape(value):
    """Return names and types without the values; of a list, those of its first element."""
    if isinstance(value, dict):
        return {name: shape(nested) for name, nested in value.items() if name != "context"}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


def parsed(line):
    try:
        return json.loads(line)
    except ValueError:
        return line


def test_every_answer_has_the_format_of_the_recorded_one():
    """Replay the exchanges in order: later ones depend on the models that earlier ones load."""
    with FakeOllama("--models", "smollm2:135m,gemma3:270m", "--tokens", "20") as fake:
        for case, exchange in exchanges().items():
            if case in COMPARED_CASES:
                assert_same_format(exchange, *replay(fake, exchange["request"]))


def replay(fake, request):
    body = request["body"]
    text = body if isinstance(body, str) else "" if body is None else json.dumps(body)
    text = text.replace('<\\"word \\" * 3000>', "word " * 3000)
    with requests.request(
        request["method"], fake.url + request["path"], data=text, stream=True, timeout=10
    ) as answer:
        return answer, [line.decode() for line in answer.iter_lines()]


def assert_same_format(exchange, answer, lines):
    case, recorded = exchange["case"], exchange["response"]
    recorded_lines = [parsed(line["line"]) for line in recorded["lines"] if "line" in line]
    lines = [parsed(line) for line in lines]
    assert answer.status_code == recorded["status"], case
    assert answer.headers["Content-Type"] == recorded["headers"]["Content-Type"], case
    if recorded["status"] >= 400:
        assert lines == recorded_lines, case
    else:
        assert [shape(lines[0]), shape(lines[-1])] == [
            shape(recorded_lines[0]),
            shape(recorded_lines[-1]),
        ], case
    assert done_reason(lines) == done_reason(recorded_lines), case


def done_reason(lines):
    return lines[-1].get("done_reason") if isinstance(lines[-1], dict) else None


def test_a_generation_is_streamed_in_pieces_and_ends_with_its_counts(fake_ollama):
    fake_ollama.control(reply="one two  three")
    lines = [json.loads(line) for line in generate(fake_ollama, stream=True).iter_lines()]
    assert [line["response"] for line in lines] == ["one", " two", "  three", ""]
    assert lines[-1]["done"] is True
    assert lines[-1]["eval_count"] == 3


def test_the_last_token_of_a_letter_has_its_own_bytes_among_the_likeliest(fake_ollama):
    fake_ollama.control(reply="Go \U0001f680")
    answer = generate(fake_ollama, stream=False, logprobs=True, top_logprobs=2).json()
    go, rocket = answer["logprobs"]
    assert (go["token"], go["top_logprobs"][0]["bytes"]) == ("Go", go["bytes"])
    assert bytes(rocket["bytes"]).decode() == rocket["token"] == " \U0001f680"
    assert rocket["top_logprobs"][0]["bytes"] == rocket["bytes"][-1:]
    assert generate(fake_ollama, logprobs=True, top_logprobs=21).status_code == 400


def test_replies_are_used_one_after_the_other(fake_ollama):
    fake_ollama.control(models={A: {"reply": ["bad", "good"]}}, echo=True)
    replies = [generate(fake_ollama, stream=False).json()["response"] for _ in range(3)]
    assert replies == ["bad", "good", "good"]
    assert generate(fake_ollama, B, "echo me", stream=False).json()["response"] == "echo me"


@pytest.mark.parametrize(
    ("case", "ability", "behaviour"),
    [
        ("chat-tool-call-stream", "tools", "calls"),
        ("chat-think-None", "thinking", "thinking"),
        ("generate-think-None", "thinking", "thinking"),
    ],
)
def test_calls_and_reasoning_have_the_format_of_recorded_ones(case, ability, behaviour):
    exchange = all_exchanges()[case]
    values = {
        "calls": [[{"name": "get_weather", "arguments": {"city": "Paris"}}]],
        "thinking": "It is sunny",
    }
    model = exchange["request"]["body"]["model"]
    with FakeOllama(f"--models={model}") as fake:
        fake.control(abilities={model: [ability]}, reply="", **{behaviour: values[behaviour]})
        answer, lines = replay(fake, exchange["request"])
    recorded = [json.loads(each["line"]) for each in exchange["response"]["lines"][:2]]
    assert answer.status_code == 200
    assert shape(parsed(lines[0])) in [shape(line) for line in recorded]


def kinds(lines):
    """Return which of reasoning (t) and text (c) each line has, without repetitions."""
    messages = [line.get("message", line) for line in lines]
    texts = [(m.get("thinking", ""), m.get("content", m.get("response"))) for m in messages]
    found = [("t" if thought else "") + ("c" if text else "") for thought, text in texts]
    return [kind for kind, before in zip(found, [None, *found], strict=False) if kind != before]


@pytest.mark.parametrize("case", ["generate-thought-schema", "chat-thought-schema"])
def test_reasoning_beside_a_format_comes_in_the_order_of_the_recording(case):
    exchange = all_exchanges()[case]
    recorded = [json.loads(each["line"]) for each in exchange["response"]["lines"]]
    model = exchange["request"]["body"]["model"]
    with FakeOllama(f"--models={model}") as fake:
        fake.control(abilities={model: ["thinking"]}, thinking="It is easy")
        lines = [parsed(line) for line in replay(fake, exchange["request"])[1]]

    assert kinds(lines) == kinds(recorded)
    # Of a second run, the prompt contains the reasoning, and only the answer is counted.
    texts = [line.get("message", line) for line in lines]
    has_second_run = case.startswith("chat")
    counted = "content" if has_second_run else "thinking"
    assert lines[-1]["eval_count"] == sum(bool(each.get(counted)) for each in texts)
    assert (lines[-1]["prompt_eval_count"] > 3 + 10) == has_second_run


def test_a_model_that_does_not_think_is_not_constrained(fake_ollama):
    fake_ollama.control(abilities={A: ["thinking"]}, tokens=2)
    body = {"model": A, "format": {"type": "object"}, "messages": [{"content": "?"}]}
    lines = replay(fake_ollama, {"method": "POST", "path": "/api/chat", "body": body})[1]
    assert [parsed(line)["message"]["content"] for line in lines] == [" alpha", " beta", ""]


def test_a_second_run_that_is_refused_is_a_line_of_the_stream(fake_ollama):
    fake_ollama.control(abilities={A: ["thinking"]}, thinking="Hm")
    refused = {"type": "string", "pattern": "a"}
    body = {"model": A, "format": refused, "messages": [{"content": "?"}]}
    lines = replay(fake_ollama, {"method": "POST", "path": "/api/chat", "body": body})[1]
    assert parsed(lines[0])["message"]["thinking"] == "Hm"
    assert "JSON schema conversion failed" in parsed(lines[-1])["error"]


def test_turns_are_used_one_after_the_other(fake_ollama):
    called = {"name": "f", "arguments": {"a": 1}}
    fake_ollama.control(
        abilities={A: ["tools", "thinking"]},
        turns=[{"calls": [called]}, {"thinking": "Hm", "reply": "one two"}],
    )
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    body = {"model": A, "tools": tools, "messages": [{"role": "user", "content": "?"}]}
    request = {"method": "POST", "path": "/api/chat", "body": body}
    first, *others = [[parsed(line) for line in replay(fake_ollama, request)[1]] for _ in range(3)]
    assert first[0]["message"]["tool_calls"][0]["function"] == {"index": 0, **called}
    for lines in others:
        assert lines[0]["message"]["thinking"] == "Hm"
        assert [line["message"]["content"] for line in lines[1:-1]] == ["one", " two"]


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        (
            [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
            "Cannot have 2 or more assistant messages",
        ),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}],
            "Value looks like object",
        ),
    ],
)
def test_a_conversation_that_ollama_refuses_is_refused(messages, text):
    body = {"model": A, "messages": messages}
    with FakeOllama("--models", A) as fake:
        response = requests.post(f"{fake.url}/api/chat", json=body, timeout=10)
    assert (response.status_code, text in response.text) == (400, True)
