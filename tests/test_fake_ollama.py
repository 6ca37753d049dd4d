"""The fake runtime: its answers have the shapes of the real one's, and its counters are true."""

import itertools
import json
import math
import socket
import threading
import time

import pytest
import requests

from tests.support.fake_ollama.wire import Connection
from tests.support.process import wait_until
from tests.support.recorded import exchanges
from tests.support.service import FakeOllama

LIKE_THE_REAL_ONE = (
    "version", "root", "tags", "ps-empty", "show-missing", "load", "load-again", "ps-one",
    "generate-stream", "generate-nostream", "generate-system", "generate-length",
    "generate-schema", "generate-schema-truncated",
    "generate-schema-refused", "generate-schema-bool", "generate-format-bad",
    "generate-options-bad", "generate-keepalive-bad", "generate-missing-model",
    "generate-no-model", "generate-bad-name", "generate-think-unsupported", "generate-too-long",
    "generate-malformed", "generate-empty-body", "chat-stream", "chat-nostream", "chat-schema",
    "chat-too-long", "chat-no-model", "chat-tools-unsupported", "load-second", "ps-two", "unload",
    "ps-right-after-unload", "unload-not-loaded", "unload-missing", "chat-unload", "not-found",
    "wrong-method", "embed-unsupported", "embed-missing",
)  # fmt: skip
A, B = "mistral:7b", "phi3:mini"
EMBEDDER = "nomic-embed-text"


def ask(fake, model=A, prompt="hello", **body):
    document = {"model": model, "prompt": prompt, **body}
    return requests.post(f"{fake.url}/api/generate", json=document, stream=True, timeout=10)


def load(fake, model=A, **body):
    return ask(fake, model, "", keep_alive=-1, **body)


def unload(fake, model=A):
    return ask(fake, model, "", keep_alive=0)


def hang_up_early(fake, **body):
    """Send a request and leave without reading the answer."""
    body = json.dumps({"model": A, "prompt": "x", **body}).encode()
    sock = socket.create_connection(("127.0.0.1", fake.port))
    sock.sendall(b"POST /api/generate HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    time.sleep(0.1)
    sock.close()


def at_once(*calls):
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def shape(value):
    """Names and types, without the values; of a list, its first element."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items() if name != "context"}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


def parsed(line):
    try:
        return json.loads(line)
    except ValueError:
        return line


def test_every_answer_has_the_shape_of_the_real_runtimes():
    """All exchanges in their order, for later ones depend on what earlier ones loaded."""
    with FakeOllama("--models", "smollm2:135m,gemma3:270m", "--tokens", "20") as fake:
        for case, exchange in exchanges().items():
            if case in LIKE_THE_REAL_ONE:
                assert_alike(exchange, *replay(fake, exchange["request"]))


def replay(fake, request):
    body = request["body"]
    text = body if isinstance(body, str) else "" if body is None else json.dumps(body)
    text = text.replace('<\\"word \\" * 3000>', "word " * 3000)
    with requests.request(
        request["method"], fake.url + request["path"], data=text, stream=True, timeout=10
    ) as answer:
        return answer, [line.decode() for line in answer.iter_lines()]


def assert_alike(exchange, answer, lines):
    case, real = exchange["case"], exchange["response"]
    real_lines = [parsed(line["line"]) for line in real["lines"] if "line" in line]
    ours = [parsed(line) for line in lines]
    assert answer.status_code == real["status"], case
    assert answer.headers["Content-Type"] == real["headers"]["Content-Type"], case
    if real["status"] >= 400:
        assert ours == real_lines, case
    else:
        assert [shape(ours[0]), shape(ours[-1])] == [
            shape(real_lines[0]),
            shape(real_lines[-1]),
        ], case
    assert done_reason(ours) == done_reason(real_lines), case


def done_reason(lines):
    return lines[-1].get("done_reason") if isinstance(lines[-1], dict) else None


def test_a_generation_streams_piece_by_piece_and_ends_with_its_numbers(fake_ollama):
    fake_ollama.control(reply="one two  three")
    lines = [json.loads(line) for line in ask(fake_ollama, stream=True).iter_lines()]
    assert [line["response"] for line in lines] == ["one", " two", "  three", ""]
    assert lines[-1]["done"] is True
    assert lines[-1]["eval_count"] == 3


def test_replies_can_be_told_one_after_the_other(fake_ollama):
    fake_ollama.control(models={A: {"reply": ["bad", "good"]}}, echo=True)
    said = [ask(fake_ollama, stream=False).json()["response"] for _ in range(3)]
    assert said == ["bad", "good", "good"]
    assert ask(fake_ollama, B, "echo me", stream=False).json()["response"] == "echo me"


def test_nothing_is_sent_before_the_first_token(fake_ollama):
    fake_ollama.control(first_token_ms=200)
    began = time.monotonic()
    ask(fake_ollama)  # returns with the headers
    assert time.monotonic() - began >= 0.2


def test_peak_concurrency_is_counted(fake_ollama):
    fake_ollama.control(first_token_ms=200)
    load(fake_ollama)
    at_once(*[lambda: ask(fake_ollama).content] * 5)
    books = fake_ollama.model(A)
    assert (books["peak"], books["current"], books["generations"]) == (5, 0, 5)


def test_places_are_taken_in_order_of_arrival(fake_ollama):
    fake_ollama.control(parallel=1, first_token_ms=30)
    at_once(*[lambda number=n: ask(fake_ollama, prompt=f"p{number}").content for n in range(8)])
    stats = fake_ollama.stats()
    arrived = [note["prompt"] for note in stats["arrivals"]]
    assert len(arrived) == 8
    started = [note["at"] for note in stats["starts"]]
    assert min(b - a for a, b in itertools.pairwise(started)) >= 0.03


def test_loads_and_unloads_are_counted_and_ps_tells_what_is_loaded(fake_ollama):
    load(fake_ollama, A)
    load(fake_ollama, A)
    load(fake_ollama, B)
    unload(fake_ollama, A)
    stats = fake_ollama.stats()
    assert (stats["loads"], stats["unloads"], stats["peak_loaded"]) == (2, 1, 2)
    assert (stats["loaded"], stats["implicit_loads"]) == ([B], 0)
    listed = requests.get(f"{fake_ollama.url}/api/ps", timeout=5).json()["models"]
    assert [model["name"] for model in listed] == [B]


def test_a_load_takes_its_time_and_is_listed_only_afterwards(fake_ollama):
    fake_ollama.control(load_seconds=0.3, unload_seconds=0.3)
    loading = threading.Thread(target=load, args=(fake_ollama,))
    loading.start()
    wait_until(lambda: fake_ollama.model(A)["state"] == "loading")
    assert fake_ollama.stats()["loaded"] == []
    loading.join()
    unload(fake_ollama)
    assert fake_ollama.stats()["loaded"] == [A]  # until its memory is free
    wait_until(lambda: fake_ollama.stats()["loaded"] == [])


def test_a_generation_for_a_model_that_is_not_loaded_is_counted(fake_ollama):
    assert ask(fake_ollama).status_code == 200
    assert fake_ollama.stats()["implicit_loads"] == 1


def test_other_options_reload_the_model(fake_ollama):
    load(fake_ollama, shift=False, options={"num_ctx": 512})
    ask(fake_ollama, shift=False, options={"num_ctx": 512, "temperature": 1}).close()
    assert fake_ollama.stats()["reloads"] == 0
    ask(fake_ollama, shift=False, options={"num_ctx": 1024}).close()
    ask(fake_ollama, shift=True, options={"num_ctx": 1024}).close()
    assert fake_ollama.stats()["reloads"] == 2


def test_unloading_a_busy_model_is_counted_and_waits_for_its_end(fake_ollama):
    fake_ollama.control(first_token_ms=300)
    load(fake_ollama)
    busy = threading.Thread(target=lambda: ask(fake_ollama).content)
    busy.start()
    wait_until(lambda: fake_ollama.model(A)["current"] == 1)
    unload(fake_ollama)
    assert fake_ollama.stats()["loaded"] == [A]
    busy.join()
    wait_until(lambda: fake_ollama.stats()["loaded"] == [])
    assert fake_ollama.stats()["unloaded_while_busy"] == 1


def test_a_hang_up_during_a_generation_is_noticed_at_once(fake_ollama):
    fake_ollama.control(first_token_ms=30_000)
    load(fake_ollama)
    hang_up_early(fake_ollama)
    wait_until(lambda: fake_ollama.stats()["cancelled_generations"] == 1, seconds=2)
    assert fake_ollama.model(A)["current"] == 0


def test_a_hang_up_between_tokens_is_noticed_at_once(fake_ollama):
    fake_ollama.control(tokens=1000, ms_per_token=10_000)
    load(fake_ollama)
    answer = ask(fake_ollama)
    assert next(answer.iter_lines())
    answer.close()
    wait_until(lambda: fake_ollama.stats()["cancelled_generations"] == 1, seconds=2)


def test_a_client_that_was_hung_up_on_is_gone():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        connection = Connection(listening.accept()[0])
        assert not connection.gone
        connection.reset()
        assert connection.gone
        client.close()


def test_a_hang_up_during_a_load_aborts_the_load(fake_ollama):
    fake_ollama.control(load_seconds=30)
    hang_up_early(fake_ollama, prompt="", keep_alive=-1)
    wait_until(lambda: fake_ollama.stats()["cancelled_loads"] == 1, seconds=2)
    assert fake_ollama.model(A)["state"] == "absent"


def test_a_load_fails_as_often_as_it_was_told_to(fake_ollama):
    fake_ollama.control(load_failures={A: {"times": 2, "text": "out of memory"}})
    answers = [load(fake_ollama) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [500, 500, 200]
    assert answers[0].json() == {"error": "out of memory"}
    assert fake_ollama.stats()["failed_loads"] == 2


def test_it_can_refuse_hang_and_fail_and_come_back(fake_ollama):
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
def test_a_stream_can_break_off(fake_ollama, kind):
    fake_ollama.control(faults=[{"stage": "generate", "kind": kind, "after": 2}])
    lines = []
    try:
        for line in ask(fake_ollama).iter_lines():
            lines.append(json.loads(line))
    except requests.RequestException:
        assert kind == "tear"
    assert not any(line.get("done") for line in lines)
    assert ("error" in lines[-1]) == (kind == "error_line")
    assert json.loads(list(ask(fake_ollama).iter_lines())[-1])["done"] is True


def test_a_model_can_vanish_and_the_runtime_can_restart(fake_ollama):
    load(fake_ollama, A)
    fake_ollama.control(drop=[A])
    assert fake_ollama.stats()["loaded"] == []
    load(fake_ollama, A)
    fake_ollama.restart()
    assert fake_ollama.stats()["loaded"] == []


def test_a_reset_forgets_what_was_counted_not_what_is_loaded(fake_ollama):
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
    told = embed(embedder, ["one", "two", "one"]).json()
    one, two, again = told["embeddings"]
    assert one == again != two
    assert math.hypot(*one) == pytest.approx(1)
    assert told["prompt_eval_count"] == 9
    (short,) = embed(embedder, "one", dimensions=3).json()["embeddings"]
    assert math.hypot(*short) == pytest.approx(1)
    assert len(short) == 3


def test_a_text_that_is_too_long_is_cut_unless_it_is_told_not_to(embedder):
    long = "word " * 5000
    assert embed(embedder, long).json()["prompt_eval_count"] == 2048
    refused = embed(embedder, long, truncate=False)
    assert refused.status_code == 400
    assert refused.json() == {"error": "the input length exceeds the context length"}


def test_a_model_that_embeds_is_loaded_by_embedding_and_generates_nothing(embedder):
    refused = load(embedder, EMBEDDER)
    assert refused.status_code == 400
    assert refused.json() == {"error": f'"{EMBEDDER}" does not support generate'}
    assert embed(embedder, []).json() == {"model": EMBEDDER, "embeddings": []}
    assert embedder.model(EMBEDDER)["state"] == "loaded"
    assert unload(embedder, EMBEDDER).json()["done_reason"] == "unload"
    assert embedder.model(EMBEDDER)["state"] == "absent"


def test_it_ends_with_the_test():
    with FakeOllama() as fake:
        port = fake.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
