"""Embeddings: the requests that the client sends, and the meaning of each response."""

from __future__ import annotations

import json
import threading
import time

import pytest

from mes.domain import Vectors
from mes.errors import (
    ClientDisconnected,
    GenerationAborted,
    GenerationTimeout,
    LoadFailed,
    MesError,
    ModelNotPulled,
    NotCapable,
    PromptTooLong,
    RequestInvalid,
    RuntimeReplyInvalid,
    RuntimeUnavailable,
)
from mes.event_loop import SocketClient
from mes.ollama import OllamaRuntime

from .conftest import SPEC, generate
from .scripted import Peer, answers, lines, once, replay, whole

TAG = SPEC.tag


def embed(
    runtime: OllamaRuntime,
    *texts: str,
    within: float = 5.0,
    client: SocketClient | None = None,
    dimensions: int | None = None,
) -> Vectors:
    return runtime.embed(
        SPEC,
        texts or ("hello",),
        dimensions=dimensions,
        deadline=time.monotonic() + within,
        client=client or SocketClient(),
    )


def answered(*vectors: object, tokens: object = 3) -> bytes:
    document = {"model": TAG, "embeddings": vectors, "prompt_eval_count": tokens}
    return whole(json.dumps(document).encode())


def refused(status: int, error: object, **facts: object) -> bytes:
    return whole(json.dumps({"error": error, **facts}).encode(), status=status)


def test_texts_are_sent_with_the_options_of_a_load_and_are_never_truncated(serve, runtime_client):
    server = serve(answers(answered([0.5, 1, -0.25], [1.0, 0.0, 0.0])))

    made = embed(runtime_client(server), "one", "two")

    assert [list(vector) for vector in made.values] == [[0.5, 1.0, -0.25], [1.0, 0.0, 0.0]]
    assert made.prompt_tokens == 3
    assert server.asked[0].line == "POST /api/embed HTTP/1.1"
    assert server.asked[0].json == {
        "model": TAG,
        "input": ["one", "two"],
        "options": {"num_ctx": 512},
        "truncate": False,
    }


@pytest.mark.parametrize(
    "case",
    [
        "embed-single",
        "embed-batch",
        "embed-num-ctx",
        "embed-empty-string-among",
        "embed-only-empty-string",
    ],
)
def test_vectors_of_a_real_ollama_are_read(serve, runtime_client, case):
    recorded = json.loads(*lines(case))

    made = embed(runtime_client(serve(replay(case))), *["text"] * len(recorded["embeddings"]))

    assert [list(vector) for vector in made.values] == recorded["embeddings"]
    assert made.prompt_tokens == recorded["prompt_eval_count"]


@pytest.mark.parametrize("dimensions", [1000, -1])
def test_dimensions_that_a_real_ollama_ignored_are_refused(serve, runtime_client, dimensions):
    case = "embed-dimensions-too-many" if dimensions > 0 else "embed-dimensions-negative"
    with pytest.raises(RequestInvalid):
        embed(runtime_client(serve(replay(case))), dimensions=dimensions)


def test_many_texts_are_sent_in_batches_and_their_vectors_are_in_order(serve, runtime_client):
    def script(peer: Peer) -> None:
        while (asked := peer.read_request()) is not None:
            texts = asked.json["input"]
            peer.send(answered(*([float(text)] for text in texts), tokens=len(texts)))

    server = serve(script)

    made = embed(runtime_client(server), *map(str, range(150)))

    assert [vector[0] for vector in made.values] == list(range(150))
    assert made.prompt_tokens == 150
    assert len(server.asked) == 3
    assert server.connections == 1


def test_fewer_dimensions_are_left_to_the_runtime(serve, runtime_client):
    server = serve(answers(answered([0.6, 0.8])))

    assert len(embed(runtime_client(server), dimensions=2).values[0]) == 2
    assert server.asked[0].json["dimensions"] == 2


@pytest.mark.parametrize(("dimensions", "words"), [(4, "vectors of 3 dim"), (2, "cannot shorten")])
def test_other_dimensions_than_requested_are_refused(serve, runtime_client, dimensions, words):
    with pytest.raises(RequestInvalid, match=words) as error:
        embed(runtime_client(serve(answers(answered([0.5, 0.5, 0.5])))), dimensions=dimensions)
    assert error.value.mistakes[0].pointer == "/dimensions"


INVALID = {
    "fewer than were asked for": answered(),
    "more than were asked for": answered([1.0], [1.0]),
    "none": whole(b'{"model": "m"}'),
    "nothing": whole(b""),
    "an empty one": answered([]),
    "text": answered(["1"]),
    "a truth": answered([True]),
    "null": answered([None]),
    "a number of more than 32 bits": answered([1e300]),
    "infinity": whole(b'{"embeddings": [[1e999]], "prompt_eval_count": 1}'),
    "no number": whole(b'{"embeddings": [[NaN]], "prompt_eval_count": 1}'),
    "a count of text": answered([1.0], tokens="3"),
    "a page": whole(b"<html>", content_type="text/html"),
    "400 for something else": refused(400, "invalid model name"),
}


@pytest.mark.parametrize("answer", INVALID.values(), ids=INVALID)
def test_an_invalid_reply_is_never_a_vector(serve, runtime_client, answer):
    with pytest.raises(RuntimeReplyInvalid):
        embed(runtime_client(serve(once(answer))))


def test_vectors_of_several_lengths_are_an_invalid_reply(serve, runtime_client):
    with pytest.raises(RuntimeReplyInvalid, match="several lengths"):
        embed(runtime_client(serve(once(answered([1.0], [1.0, 2.0])))), "one", "two")


REFUSALS: dict[str, tuple[bytes, type[MesError], str]] = {
    "a runner that died": (refused(500, "model runner has stopped"), GenerationAborted, "stopped"),
    "a full queue": (refused(503, "server busy"), RuntimeUnavailable, "busy"),
    "a batch that is too small": (
        refused(500, "input (602 tokens) is too large to process. (current batch size: 512)"),
        PromptTooLong,
        "602 tokens.* 512",
    ),
    "numbers beside the error": (
        refused(400, "the input length exceeds the context length", input=1, n_prompt_tokens=602,
                n_ctx=512),
        PromptTooLong,
        "^input 1 is too long: it has 602 tokens, but this model's maximum context .* 512 tokens;",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "error", "words"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_is_the_error_that_it_stands_for(serve, runtime_client, answer, error, words):
    with pytest.raises(error, match=words):
        embed(runtime_client(serve(once(answer))))


def test_without_numbers_of_ollama_the_error_names_the_known_ones(serve, runtime_client):
    listed = {"models": [{"name": TAG, "context_length": 256}]}
    no = refused(400, "the input length exceeds the context length")
    server = serve(answers(no, whole(json.dumps(listed).encode())))

    with pytest.raises(PromptTooLong, match=r"256 tokens; the longest, input 1, has 300 char"):
        embed(runtime_client(server), "short", "x" * 300)


@pytest.mark.parametrize(
    ("case", "error"),
    [
        ("embed-unsupported", NotCapable),
        ("embed-missing", ModelNotPulled),
        ("embed-too-long-no-truncate", PromptTooLong),
        ("embed-too-long-one-no-truncate", PromptTooLong),
        ("embed-num-ctx-too-long", PromptTooLong),
    ],
)
def test_a_refusal_of_a_real_ollama_is_the_error_that_it_stands_for(
    serve, runtime_client, case, error
):
    with pytest.raises(error):
        embed(runtime_client(serve(replay(case))))


def test_a_generation_with_a_model_that_only_embeds_is_refused(serve, runtime_client):
    no = refused(400, f'"{TAG}" does not support generate')
    with pytest.raises(NotCapable, match="makes embeddings and no text"):
        generate(runtime_client(serve(once(no))))


def test_a_model_that_only_embeds_is_loaded_by_embedding_nothing(serve, runtime_client):
    no = refused(400, f'"{TAG}" does not support generate')
    server = serve(once(no), once(answered(tokens=0)))

    runtime_client(server).load(SPEC, deadline=time.monotonic() + 5)

    assert [asked.line for asked in server.asked] == [
        "POST /api/generate HTTP/1.1",
        "POST /api/embed HTTP/1.1",
    ]
    assert server.asked[1].json["input"] == []
    assert server.asked[1].json["options"] == server.asked[0].json["options"]
    assert server.asked[1].json["keep_alive"] == 600


def test_a_load_by_embedding_may_fail(serve, runtime_client):
    no = refused(400, f'"{TAG}" does not support generate')
    failed = refused(500, "llama-server process has terminated: exit status 1")
    with pytest.raises(LoadFailed, match="exit status 1"):
        runtime_client(serve(once(no), once(failed))).load(SPEC, deadline=time.monotonic() + 5)


def test_a_deadline_ends_an_embedding(serve, runtime_client):
    server = serve(lambda peer: peer.read_request() and peer.closed_within(20))
    with pytest.raises(GenerationTimeout):
        embed(runtime_client(server), within=0.2)


def test_a_client_that_disconnects_cancels_an_embedding_in_the_runtime(serve, runtime_client):
    closed = threading.Event()
    client = SocketClient()

    def script(peer: Peer) -> None:
        peer.read_request()
        client.mark_disconnected()
        if peer.closed_within(10):
            closed.set()

    with pytest.raises(ClientDisconnected):
        embed(runtime_client(serve(script)), within=30, client=client)
    assert closed.wait(10)
