"""The client with the recorded responses of a real Ollama, byte for byte."""

from __future__ import annotations

import json
import time

import pytest

from mes.domain import KEEP_ALIVE_SECONDS, Event, Message, Token, normalise
from mes.errors import (
    GenerationAborted,
    ModelNotPulled,
    NotCapable,
    PromptTooLong,
    RequestInvalid,
    RuntimeReplyInvalid,
    SchemaRefused,
)
from tests.support.recorded import all_exchanges

from .conftest import OPTIONS, SPEC, generate
from .scripted import answers, last, lines, replay, streamed, token

GENERATIONS = [
    "generate-stream",
    "generate-nostream",
    "generate-system",
    "generate-length",
    "generate-stop",
    "generate-schema",
    "generate-json-mode",
    "generate-schema-truncated",
    "generate-logprobs",
    "generate-logprobs-stream",
    "generate-logprobs-schema",
    "generate-think-False",
    "generate-think-None",
    "generate-think-True",
    "generate-think-low",
    "generate-think-schema",
    "generate-thought-True",
    "generate-thought-schema",
    "unload-while-generating-the-generation",
    "unload-while-generating-the-generation-2",
    "update-loaded-5-generate",
]
CONVERSATIONS = [
    "chat-stream",
    "chat-nostream",
    "chat-schema",
    "chat-think-False",
    "chat-tools-stream",
    "chat-tools-nostream",
    "chat-tools-result",
    "chat-tools-schema",
    "chat-tool-call-cut",
    "chat-tool-call-format",
]
REFUSALS = {
    "generate-schema-refused": SchemaRefused,
    "generate-schema-bool": SchemaRefused,
    "generate-format-bad": SchemaRefused,
    "generate-options-bad": GenerationAborted,
    "generate-keepalive-bad": RequestInvalid,
    "generate-missing-model": ModelNotPulled,
    "generate-no-model": ModelNotPulled,
    "generate-bad-name": RequestInvalid,
    "generate-think-unsupported": RequestInvalid,
    "chat-tools-unsupported": RequestInvalid,
    "generate-too-long": PromptTooLong,
    "chat-too-long": PromptTooLong,
    "generate-malformed": RequestInvalid,
    "generate-empty-body": RequestInvalid,
    "not-found": RuntimeReplyInvalid,
    "wrong-method": RuntimeReplyInvalid,
    "generate-after-delete": ModelNotPulled,
    "generate-cloud": RuntimeReplyInvalid,
    "generate-embedder": NotCapable,
    "chat-embedder": NotCapable,
    "generate-image-no-vision": NotCapable,
    "chat-image-no-vision": NotCapable,
    "chat-image-no-vision-gemma": NotCapable,
    "chat-image-bad-base64": RequestInvalid,
    "generate-top-logprobs-21": RequestInvalid,
}
LOADS = ["load", "load-again", "load-second", "load-before-delete", "update-loaded-1-load"]
UNLOADS = [
    "unload",
    "unload-not-loaded",
    "unload-missing",
    "unload-after-delete",
    "unload-while-generating-the-unload",
    "unload-while-generating-the-unload-2",
    "update-loaded-7-unload",
    "embed-unload",
]


@pytest.mark.parametrize("case", GENERATIONS)
def test_a_generation_of_a_real_ollama_is_read(serve, runtime_client, case):
    parts = [json.loads(one) for one in lines(case)]

    reply = generate(runtime_client(serve(replay(case))))

    assert reply.text == "".join(part["response"] for part in parts)
    assert reply.finish_reason == parts[-1]["done_reason"]
    assert reply.usage.prompt_tokens == parts[-1]["prompt_eval_count"]
    assert reply.usage.completion_tokens == parts[-1]["eval_count"]
    assert reply.prompt_ms == parts[-1]["prompt_eval_duration"] / 1e6
    assert reply.generation_ms == parts[-1]["eval_duration"] / 1e6
    assert 0 < reply.time_to_first_token_ms < 5000


def recorded_body(case):
    """Return the request of a recording without `keep_alive`, which only loads set now."""
    body = all_exchanges()[case]["request"]["body"]
    return {name: value for name, value in body.items() if name != "keep_alive"}


@pytest.mark.parametrize("case", ["generate-stream", "generate-system", "generate-schema"])
def test_a_generation_is_requested_as_in_the_recording(serve, runtime_client, case):
    server, recorded = serve(replay(case)), recorded_body(case)

    generate(
        runtime_client(server),
        text=recorded["prompt"],
        system=recorded.get("system"),
        format=recorded.get("format"),
        options=recorded["options"],
    )

    assert server.asked[0].line == "POST /api/generate HTTP/1.1"
    assert server.asked[0].json == recorded


@pytest.mark.parametrize("case", CONVERSATIONS)
def test_a_conversation_with_a_real_ollama_is_read(serve, runtime_client, case):
    parts = [json.loads(one) for one in lines(case)]
    emitted: list[Event] = []

    reply = generate(
        runtime_client(serve(replay(case))), emit=lambda *events: emitted.extend(events)
    )

    assert reply.text == "".join(part["message"]["content"] for part in parts)
    assert reply.finish_reason == parts[-1]["done_reason"]
    assert reply.usage.completion_tokens == parts[-1]["eval_count"]
    assert emitted == [
        Token(part["message"]["content"]) for part in parts if part["message"]["content"]
    ]


@pytest.mark.parametrize("case", ["chat-stream", "chat-schema"])
def test_a_conversation_is_requested_as_in_the_recording(serve, runtime_client, case):
    server, recorded = serve(replay(case)), recorded_body(case)
    messages = tuple(Message(**each) for each in recorded["messages"])

    generate(
        runtime_client(server),
        text="",
        messages=messages,
        format=recorded.get("format"),
        options=recorded["options"],
    )

    assert server.asked[0].line == "POST /api/chat HTTP/1.1"
    assert server.asked[0].json == recorded


def test_probabilities_are_requested_as_in_the_recording_and_read(serve, runtime_client):
    server = serve(replay("generate-logprobs"))
    recorded = recorded_body("generate-logprobs")
    emitted: list[Event] = []

    options = recorded["options"]
    reply = generate(
        runtime_client(server),
        text=recorded["prompt"],
        options=options,
        top_logprobs=recorded["top_logprobs"],
        emit=lambda *events: emitted.extend(events),
    )

    assert server.asked[0].json == recorded
    assert [each.token for each in reply.logprobs] == ["The", " capital", " of"]
    assert [len(each.top_logprobs) for each in reply.logprobs] == [2, 2, 2]
    assert reply.logprobs[0].bytes == tuple(b"The")
    assert reply.logprobs[0].logprob == pytest.approx(-2.463, abs=0.001)
    assert [event.logprobs for event in emitted] == [(each,) for each in reply.logprobs]


def test_the_chosen_token_stands_among_the_likeliest(serve, runtime_client):
    case = "generate-logprobs-schema"  # the schema makes the model choose unlikely tokens
    reply = generate(runtime_client(serve(replay(case))), top_logprobs=1)

    assert "".join(each.token for each in reply.logprobs) == reply.text
    for each in reply.logprobs:
        names = [likely.token for likely in each.top_logprobs]
        assert names.count(each.token) == 1
        assert len(names) <= 2
    opening = reply.logprobs[0]
    assert [likely.token for likely in opening.top_logprobs] == ["The", "{"]
    assert opening.top_logprobs[1].logprob == opening.logprob


@pytest.mark.parametrize(("case", "error"), REFUSALS.items())
def test_a_refusal_of_a_real_ollama_is_the_error_that_it_stands_for(
    serve, runtime_client, case, error
):
    with pytest.raises(error):
        generate(runtime_client(serve(replay(case))), format={"type": "object"})


# Clients look for "prompt is too long" or for "model's maximum context length is".
TOO_LONG = (
    "the prompt is too long: it has 3010 tokens, "
    "but this model's maximum context length is 512 tokens"
)


@pytest.mark.parametrize(
    ("case", "messages", "pointer"),
    [
        ("generate-too-long", (), "/prompt"),
        ("chat-too-long", (Message("user", "word"),), "/messages"),
    ],
)
def test_the_error_of_an_overlong_prompt_has_the_numbers_and_the_place(
    serve, runtime_client, case, messages, pointer
):
    with pytest.raises(PromptTooLong, match=TOO_LONG) as caught:
        generate(runtime_client(serve(replay(case))), messages=messages)
    assert [mistake.pointer for mistake in caught.value.mistakes] == [pointer]


def test_a_refused_request_has_the_words_of_the_runtime(serve, runtime_client):
    with pytest.raises(RequestInvalid, match="illegal base64 data at input byte 0"):
        generate(runtime_client(serve(replay("chat-image-bad-base64"))))


def test_the_reason_of_a_refused_schema_is_the_detail(serve, runtime_client):
    with pytest.raises(SchemaRefused, match=r"conversion failed: Pattern must start with"):
        generate(runtime_client(serve(replay("generate-schema-refused"))), format={})


def test_the_error_of_a_missing_model_names_the_command_that_pulls_it(serve, runtime_client):
    with pytest.raises(ModelNotPulled, match=r"`ollama pull smollm2:135m`"):
        generate(runtime_client(serve(replay("generate-missing-model"))))


@pytest.mark.parametrize("case", LOADS)
def test_a_load_ends_when_the_model_is_ready(serve, runtime_client, case):
    server = serve(replay(case))

    runtime_client(server).load(SPEC, deadline=time.monotonic() + 5)

    sent = server.asked[0].json
    recorded = recorded_body("load")
    assert {name: sent[name] for name in recorded} == recorded
    assert sent["keep_alive"] == KEEP_ALIVE_SECONDS
    assert sent["prompt"] == ""
    assert sent["options"]["num_ctx"] == OPTIONS["num_ctx"]


def test_a_model_that_is_not_pulled_cannot_be_loaded(serve, runtime_client):
    with pytest.raises(ModelNotPulled):
        runtime_client(serve(replay("generate-missing-model"))).load(
            SPEC, deadline=time.monotonic() + 5
        )


@pytest.mark.parametrize("case", UNLOADS)
def test_an_unload_succeeds_whether_or_not_the_model_is_loaded(serve, runtime_client, case):
    server = serve(replay(case))

    runtime_client(server).unload("smollm2:135m")

    assert server.asked[0].json["keep_alive"] == 0
    assert server.asked[0].json["prompt"] == ""


def test_the_models_in_memory_are_listed(serve, runtime_client):
    models = runtime_client(serve(replay("ps-two"))).loaded()

    assert [model.name for model in models] == ["gemma3:270m", "smollm2:135m"]
    assert models[0].quantization == "Q4_K_M"
    assert models[0].size_bytes == 284101180
    assert models[0].vram_bytes == 0
    assert models[0].context_length == 512
    assert models[0].digest.startswith("sha256:14f8ac0f")


def test_an_empty_memory_lists_nothing(serve, runtime_client):
    assert runtime_client(serve(replay("ps-empty"))).loaded() == []


def test_two_versions_of_a_model_in_memory_are_both_listed(serve, runtime_client):
    models = runtime_client(serve(replay("update-loaded-6-ps"))).loaded()

    assert [model.name for model in models] == ["m-a:latest", "m-a:latest"]
    assert [model.digest[:12] for model in models] == ["sha256:cf90f", "sha256:6370e"]


def test_a_deleted_model_that_is_in_memory_is_listed(serve, runtime_client):
    models = runtime_client(serve(replay("ps-after-delete"))).loaded()

    assert [model.name for model in models] == ["gone:latest", "gemma3:270m"]


def test_the_models_on_disk_are_listed(serve, runtime_client):
    models = runtime_client(serve(replay("tags"))).pulled()

    assert [model.name for model in models] == ["gemma3:270m", "smollm2:135m"]
    assert all(model.name == normalise(model.name) for model in models)
    assert models[1].parameter_size == "134.52M"
    assert models[1].size_bytes == 98362745


def test_a_card_has_the_context_length_and_the_capabilities(serve, runtime_client):
    card = runtime_client(serve(replay("show"))).card("smollm2:135m")

    assert card.context_length == 8192
    assert card.quantization == "Q4_1"
    assert card.parameter_size == "134.52M"
    assert "completion" in card.capabilities


@pytest.mark.parametrize(
    ("case", "capabilities"),
    [
        ("show-embedder", ("embedding",)),
        ("show-tools", ("completion", "tools")),
        ("show-thinking", ("completion", "thinking")),
    ],
)
def test_a_card_has_each_capability(serve, runtime_client, case, capabilities):
    assert runtime_client(serve(replay(case))).card("smollm2:135m").capabilities == capabilities


def test_the_card_of_a_missing_model_is_an_error(serve, runtime_client):
    with pytest.raises(ModelNotPulled):
        runtime_client(serve(replay("show-missing"))).card("nope")


def test_the_version_is_named_with_its_runtime(serve, runtime_client):
    assert runtime_client(serve(replay("version"))).version() == "ollama 0.33.0-rc2"


@pytest.mark.parametrize(
    ("fields", "use"),
    [
        ({}, "unknown"),
        ({"prompt_cached_count": 0}, "not_used"),
        ({"prompt_cached_count": 9}, "used"),
    ],
)
def test_a_reply_states_whether_a_cache_was_used(serve, runtime_client, fields, use):
    server = serve(answers(streamed(token("Hi"), last(**fields))))
    assert generate(runtime_client(server)).prefix_cache == use
