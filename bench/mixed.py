"""Interleaved requests for more models than fit, through MES and directly to the runtime.

    python -m bench.mixed                       # the embedded runtime, three names for one file
    python -m bench.mixed --runtime http://127.0.0.1:11434 --models smollm2:135m,gemma3:270m

The same requests, with room for some of the models only, are sent to MES grouped by model, to MES
interleaved, and to the runtime interleaved under the same limit. Each client keeps `--in-flight`
requests open at a time, as a benchmark does. A runtime given by `--runtime` must have been started
with that limit (OLLAMA_MAX_LOADED_MODELS).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.process import free_port
from tests.support.service import KEY, Service

MODEL_FILE = Path("models/smollm2--135m.gguf")
PROMPT = "Write one sentence about the sea."

Ask = Callable[[str], None]


@contextmanager
def embedded(models: list[str], places: int) -> Iterator[str]:
    """Run the embedded runtime with one file under several names and room for some of them."""
    port = free_port()
    with tempfile.TemporaryDirectory(dir=MODEL_FILE.parent) as folder:
        for model in models:
            os.link(MODEL_FILE, Path(folder) / f"{model.replace(':', '--')}.gguf")
        settings = {"OLLAMA_MAX_LOADED_MODELS": str(places), "EMBEDDED_MODELS_DIR": folder}
        serve = [sys.executable, "-m", "mes.embedded", "serve", "--port", str(port)]
        process = subprocess.Popen(
            serve, env={**os.environ, **settings}, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        process.stderr.readline()  # it writes a line when it listens
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)


def get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=60) as response:
        answer: dict[str, Any] = json.loads(response.read())
        return answer


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    request.add_header("Authorization", f"Bearer {KEY}")
    with urllib.request.urlopen(request, timeout=600) as response:
        answer: dict[str, Any] = json.loads(response.read())
        return answer


def makespan(requests: list[str], open_at_a_time: int, ask: Ask) -> float:
    """Return the seconds until all requests are answered; the next is sent when one ends."""
    began = time.perf_counter()
    with ThreadPoolExecutor(open_at_a_time) as pool:
        list(pool.map(ask, requests))
    return time.perf_counter() - began


def through_mes(service: Service, tokens: int) -> Ask:
    def ask(model: str) -> None:
        body = {"model_id": model, "prompt": PROMPT, "max_tokens": tokens, "timeout": 600}
        assert post(f"{service.url}/v1/inference", body)["usage"]["completion_tokens"] > 0

    return ask


def directly(url: str, tokens: int) -> Ask:
    def ask(model: str) -> None:
        options = {"num_predict": tokens, "num_ctx": 1024}
        body = {"model": model, "prompt": PROMPT, "stream": False, "options": options}
        assert post(f"{url}/api/generate", body)["done"]

    return ask


@contextmanager
def count_loads(url: str) -> Iterator[Counter[str]]:
    """Count, for each model, how often it appears in the list of loaded models of the runtime."""
    loads: Counter[str] = Counter()
    stop = threading.Event()

    def poll() -> None:
        before: set[str] = set()
        while not stop.wait(0.01):
            now = {model["name"] for model in get(f"{url}/api/ps")["models"]}
            loads.update(now - before)
            before = now

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield loads
    finally:
        stop.set()
        thread.join()


def main() -> None:
    options = _options()
    models = options.models.split(",")
    interleaved = [models[n % len(models)] for n in range(options.requests)]
    if options.runtime:
        compare(options.runtime, models, interleaved, options)
    else:
        with embedded(models, options.places) as url:
            compare(url, models, interleaved, options)


def compare(
    url: str, models: list[str], interleaved: list[str], options: argparse.Namespace
) -> None:
    at_a_time = options.clients * options.in_flight
    entry = {"max_concurrent": options.concurrent, "context_window": 1024}
    print(
        f"{len(models)} models, room for {options.places}, {options.requests} requests, "
        f"{options.clients} clients with {options.in_flight} in flight each"
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        Service(
            Path(folder),
            ollama_url=url,
            models=dict.fromkeys(models, entry),
            MAX_LOADED_MODELS=options.places,
            SWAP_PATIENCE=options.patience,
        ) as service,
    ):
        service.wait_until_ready()
        mes = through_mes(service, options.tokens)
        grouped = report("MES, grouped", url, sorted(interleaved), at_a_time, mes)
        mixed = report("MES, interleaved", url, interleaved, at_a_time, mes)
        for model in models:
            service.post(f"/v1/models/{model}/unload")
    direct = report(
        "directly, interleaved", url, interleaved, at_a_time, directly(url, options.tokens)
    )
    print(f"interleaved / grouped {mixed / grouped:7.2f}  (at most 1.25)")
    print(f"direct / MES          {direct / mixed:7.2f}  (at least 3)")


def report(name: str, url: str, requests: list[str], at_a_time: int, ask: Ask) -> float:
    with count_loads(url) as loads:
        seconds = makespan(requests, at_a_time, ask)
    print(f"{name:22} {seconds:6.1f} s {loads.total():5} loads")
    return seconds


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runtime", metavar="URL", help="an Ollama (default: the embedded one)")
    parser.add_argument("--models", default="a:135m,b:135m,c:135m", help="comma-separated")
    parser.add_argument("--places", type=int, default=1, help="models in memory at a time (1)")
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--in-flight", type=int, default=10, help="open requests a client (10)")
    parser.add_argument("--concurrent", type=int, default=4, help="generations a model (4)")
    parser.add_argument("--tokens", type=int, default=16, help="in each answer (16)")
    parser.add_argument("--patience", default="auto", help="SWAP_PATIENCE (auto)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
