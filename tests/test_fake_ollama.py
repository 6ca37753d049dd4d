"""The fake runtime: its answers have the format of recorded ones, and its counters are correct."""

import itertools
import json
import math
import socket
import threading
import time

import pytest
import requests

from tests.support.fake_ollama.connection import Connection
from tests.support.process import wait_until
from tests.support.recorded import all_exchanges, exchanges
from tests.support.service import FakeOllama

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
A, B = "mistral:7b", "phi3:mini"
EMBEDDER = "nomic-embed-text"


def generate(fake, model=A, prompt="hello", **body):
    document = {"model": model, "prompt": prompt, **body}
    return requests.post(f"{fake.url}/api/generate", json=document, stream=True, timeout=10)


def load(fake, model=A, **body):
    return generate(fake, model, "", keep_alive=-1, **body)


def unload(fake, model=A):
    return generate(fake, model, "", keep_alive=0)


def disconnect_early(fake, **body):
    """Send a request and disconnect without reading the answer."""
    body = json.dumps({"model": A, "prompt": "x", **body}).encode()
    sock = socket.create_connection(("127.0.0.1", fake.port))
    sock.sendall(b"POST /api/generate HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    time.sleep(0.1)
    sock.close()


def run_together(*calls):
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


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


def test_nothing_is_sent_before_the_first_token(fake_ollama):
    fake_ollama.control(first_token_ms=200)
    started = time.monotonic()
    generate(fake_ollama)  # returns with the headers
    assert time.monotonic() - started >= 0.2


def test_peak_concurrency_is_counted(fake_ollama):
    fake_ollama.control(first_token_ms=200)
    load(fake_ollama)
    run_together(*[lambda: generate(fake_ollama).content] * 5)
    stats = fake_ollama.model(A)
    assert (stats["peak"], stats["current"], stats["generations"]) == (5, 0, 5)


def test_generations_beyond_the_parallel_limit_wait(fake_ollama):
    fake_ollama.control(parallel=1, first_token_ms=30)
    run_together(
        *[lambda number=n: generate(fake_ollama, prompt=f"p{number}").content for n in range(8)]
    )
    stats = fake_ollama.stats()
    arrived = [event["prompt"] for event in stats["arrivals"]]
    assert len(arrived) == 8
    started = [event["at"] for event in stats["starts"]]
    assert min(b - a for a, b in itertools.pairwise(started)) >= 0.03


def test_loads_and_unloads_are_counted_and_ps_lists_the_loaded_models(fake_ollama):
    load(fake_ollama, A)
    load(fake_ollama, A)
    load(fake_ollama, B)
    unload(fake_ollama, A)
    stats = fake_ollama.stats()
    assert (stats["loads"], stats["unloads"], stats["peak_loaded"]) == (2, 1, 2)
    assert (stats["loaded"], stats["implicit_loads"]) == ([B], 0)
    listed = requests.get(f"{fake_ollama.url}/api/ps", timeout=5).json()["models"]
    assert [model["name"] for model in listed] == [B]


def test_a_loading_model_is_not_listed(fake_ollama):
    fake_ollama.control(load_seconds=0.3, unload_seconds=0.3)
    loading = threading.Thread(target=load, args=(fake_ollama,))
    loading.start()
    wait_until(lambda: fake_ollama.model(A)["state"] == "loading")
    assert fake_ollama.stats()["loaded"] == []
    loading.join()
    unload(fake_ollama)
    assert fake_ollama.stats()["loaded"] == [A]  # until the unload has ended
    wait_until(lambda: fake_ollama.stats()["loaded"] == [])


def test_a_generation_for_a_model_that_is_not_loaded_is_counted(fake_ollama):
    assert generate(fake_ollama).status_code == 200
    assert fake_ollama.stats()["implicit_loads"] == 1


def test_other_options_reload_the_model(fake_ollama):
    load(fake_ollama, shift=False, options={"num_ctx": 512})
    generate(fake_ollama, shift=False, options={"num_ctx": 512, "temperature": 1}).close()
    assert fake_ollama.stats()["reloads"] == 0
    generate(fake_ollama, shift=False, options={"num_ctx": 1024}).close()
    generate(fake_ollama, shift=True, options={"num_ctx": 1024}).close()
    assert fake_ollama.stats()["reloads"] == 2


def test_unloading_a_busy_model_is_counted_and_waits_for_its_end(fake_ollama):
    fake_ollama.control(first_token_ms=300)
    load(fake_ollama)
    busy = threading.Thread(target=lambda: generate(fake_ollama).content)
    busy.start()
    wait_until(lambda: fake_ollama.model(A)["current"] == 1)
    unload(fake_ollama)
    assert fake_ollama.stats()["loaded"] == [A]
    busy.join()
    wait_until(lambda: fake_ollama.stats()["loaded"] == [])
    assert fake_ollama.stats()["unloaded_while_busy"] == 1


def test_a_disconnect_during_a_generation_is_noticed_at_once(fake_ollama):
    fake_ollama.control(first_token_ms=30_000)
    load(fake_ollama)
    disconnect_early(fake_ollama)
    wait_until(lambda: fake_ollama.stats()["cancelled_generations"] == 1, seconds=2)
    assert fake_ollama.model(A)["current"] == 0


def test_a_disconnect_between_tokens_is_noticed_at_once(fake_ollama):
    fake_ollama.control(tokens=1000, ms_per_token=10_000)
    load(fake_ollama)
    answer = generate(fake_ollama)
    assert next(answer.iter_lines())
    answer.close()
    wait_until(lambda: fake_ollama.stats()["cancelled_generations"] == 1, seconds=2)


def test_a_client_is_gone_after_a_reset():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        connection = Connection(listening.accept()[0])
        assert not connection.gone
        connection.reset()
        assert connection.gone
        client.close()


def test_a_disconnect_during_a_load_aborts_the_load(fake_ollama):
    fake_ollama.control(load_seconds=30)
    disconnect_early(fake_ollama, prompt="", keep_alive=-1)
    wait_until(lambda: fake_ollama.stats()["cancelled_loads"] == 1, seconds=2)
    assert fake_ollama.model(A)["state"] == "absent"


def test_a_load_fails_as_often_as_configured(fake_ollama):
    fake_ollama.control(load_failures={A: {"times": 2, "text": "out of memory"}})
    answers = [load(fake_ollama) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [500, 500, 200]
    assert answers[0].json() == {"error": "out of memory"}
    assert fake_ollama.stats()["failed_loads"] == 2


def test_the_mode_makes_all_requests_fail_until_it_is_reset(fake_ollama):
    url = f"{fake_ollama.url}/api/version"
    fake_ollama.control(mode="refuse")
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=5)
    fake_ollama.control(mode="hang")
    with pytest.raises(requests.ReadTimeout):
        requests.get(url, timeout=0.2)
    fake_ollama.control(mode="error")
    assert requests.get(url, timeout=5).status_code == 500
    fake_ollama.control(mode="ok")
    assert requests.get(url, timeout=5).json() == {"version": "0.33.0"}


@pytest.mark.parametrize("kind", ["cut", "error_line", "tear"])
def test_a_stream_can_be_interrupted(fake_ollama, kind):
    fake_ollama.control(faults=[{"stage": "generate", "kind": kind, "after": 2}])
    lines = []
    try:
        for line in generate(fake_ollama).iter_lines():
            lines.append(json.loads(line))
    except requests.RequestException:
        assert kind == "tear"
    assert not any(line.get("done") for line in lines)
    assert ("error" in lines[-1]) == (kind == "error_line")
    assert json.loads(list(generate(fake_ollama).iter_lines())[-1])["done"] is True


def test_a_model_can_be_dropped_and_the_runtime_restarted(fake_ollama):
    load(fake_ollama, A)
    fake_ollama.control(drop=[A])
    assert fake_ollama.stats()["loaded"] == []
    load(fake_ollama, A)
    fake_ollama.restart()
    assert fake_ollama.stats()["loaded"] == []


def test_a_reset_clears_the_counters_and_keeps_models_loaded(fake_ollama):
    load(fake_ollama, A)
    fake_ollama.reset()
    stats = fake_ollama.stats()
    assert (stats["loads"], stats["requests"], stats["loaded"]) == (0, {}, [A])


def embed(fake, texts, model=EMBEDDER, **body):
    document = {"model": model, "input": texts, **body}
    return requests.post(f"{fake.url}/api/embed", json=document, timeout=10)


@pytest.fixture
def embedder():
    with FakeOllama("--models", f"{EMBEDDER},{A}") as fake:
        yield fake


def test_vectors_are_of_length_1_and_the_same_for_the_same_text(embedder):
    answer = embed(embedder, ["one", "two", "one"]).json()
    one, two, again = answer["embeddings"]
    assert one == again != two
    assert math.hypot(*one) == pytest.approx(1)
    assert answer["prompt_eval_count"] == 9
    (short,) = embed(embedder, "one", dimensions=3).json()["embeddings"]
    assert math.hypot(*short) == pytest.approx(1)
    assert len(short) == 3


def test_a_text_that_is_too_long_is_truncated_unless_truncate_is_false(embedder):
    long = "word " * 5000
    assert embed(embedder, long).json()["prompt_eval_count"] == 2048
    refused = embed(embedder, long, truncate=False)
    assert refused.status_code == 400
    assert refused.json() == {"error": "the input length exceeds the context length"}


def test_an_embedding_model_is_loaded_by_embed_and_cannot_generate(embedder):
    refused = load(embedder, EMBEDDER)
    assert refused.status_code == 400
    assert refused.json() == {"error": f'"{EMBEDDER}" does not support generate'}
    assert embed(embedder, []).json() == {"model": EMBEDDER, "embeddings": []}
    assert embedder.model(EMBEDDER)["state"] == "loaded"
    assert unload(embedder, EMBEDDER).json()["done_reason"] == "unload"
    assert embedder.model(EMBEDDER)["state"] == "absent"


def test_the_process_ends_with_the_context():
    with FakeOllama() as fake:
        port = fake.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


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
