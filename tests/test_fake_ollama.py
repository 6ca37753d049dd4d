"""The fake runtime: its counters and faults are correct, and it notices disconnects."""

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
from tests.support.service import FakeOllama

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


@pytest.fixture
def one_place():
    with FakeOllama("--models", f"{A},{B}", "--places", "1") as fake:
        yield fake


def busy_until_the_load_waits(fake, **body):
    """Keep A busy, ask for B, and return their threads once the runtime makes room for B."""
    fake.control(first_token_ms=300)
    load(fake, A)
    threads = [threading.Thread(target=lambda: generate(fake, A, **body).content)]
    threads[0].start()
    wait_until(lambda: fake.model(A)["current"] == 1)
    threads.append(threading.Thread(target=lambda: load(fake, B)))
    threads[1].start()
    wait_until(lambda: fake.model(A)["evictions"] == 1)
    return threads


def test_a_load_without_a_free_place_makes_an_idle_model_leave(one_place):
    load(one_place, A)
    load(one_place, B)
    stats = one_place.stats()
    assert (stats["loaded"], stats["evictions"], stats["peak_loaded"]) == ([B], 1, 1)


def test_a_load_waits_until_the_busy_model_that_has_to_leave_is_idle(one_place):
    for thread in busy_until_the_load_waits(one_place):
        thread.join()
    assert one_place.stats()["loaded"] == [B]


def test_a_request_with_keep_alive_makes_the_load_wait_on(one_place):
    busy, waiting = busy_until_the_load_waits(one_place)
    generate(one_place, A, keep_alive=-1).close()
    busy.join()
    waiting.join(0.1)
    assert waiting.is_alive()
    assert one_place.stats()["loaded"] == [A]
    unload(one_place, A)
    waiting.join()
    assert one_place.stats()["loaded"] == [B]


def test_a_model_leaves_when_it_was_not_used_for_as_long_as_it_is_kept(fake_ollama):
    generate(fake_ollama, A, "", keep_alive=0.3)
    assert fake_ollama.stats()["loaded"] == [A]
    wait_until(lambda: fake_ollama.stats()["loaded"] == [])


def test_an_embedding_model_serves_one_request_at_a_time(embedder):
    embedder.control(parallel=4, first_token_ms=50)
    run_together(*[lambda: embed(embedder, "text")] * 3)
    started = [event["at"] for event in embedder.stats()["starts"]]
    assert min(b - a for a, b in itertools.pairwise(started)) >= 0.05
