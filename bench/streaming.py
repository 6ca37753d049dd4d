"""Streams through MES: time to the first token, gaps between tokens, CPU per token.

Runs MES with one worker over the fake runtime, and streams alternately from the runtime directly,
through MES, and through `bench.minimal_proxy`:

    python -m bench.streaming
    python -m bench.streaming --rounds 20 --tokens 500
    python -m bench.streaming --beside without=../another-checkout

The loads: one stream with a token every 10 ms; and 32 streams at once, each with a token every
40 ms (the fake runtime sends no more than that evenly). The 32 streams have their tokens `in step`,
like the batches of llama.cpp, or `apart`, each at times of its own.

CPU is the user and system time of the process for each token after the first: the time of long
answers, less that of answers of one token, less that of an idle worker for the same duration. A gap
is the time between two tokens of a stream.

The end of the output compares with the targets: the first token of one stream at most 5 ms later
than directly; at most 60 us of CPU per token; and the 99th percentile of the gaps of 32 streams at
most 1.25 times the direct one.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import pairwise
from typing import cast
from urllib.parse import urlsplit

from bench import checkouts
from tests.integration.helpers import cpu_seconds, percentile
from tests.support import process
from tests.support.service import KEY, FakeOllama, Service

MODEL, PROMPT = "streamed:1b", "The capital of France?"
# With `shift` as MES sends it: without it, the runtime would load its model again in each round.
_DIRECTLY: dict[str, object] = {"model": MODEL, "prompt": PROMPT, "stream": True, "shift": False}
MAX_DELAY_MS, MAX_CPU_US, MAX_GAP_RATIO = 5.0, 60.0, 1.25
_HEADERS = {
    "Host": "localhost",
    "Authorization": f"Bearer {KEY}",
    "Content-Type": "application/json",
    "Connection": "close",
}


@dataclass(frozen=True)
class Load:
    """A number of simultaneous streams, and the times of their tokens."""

    name: str
    streams: int
    ms_per_token: float
    in_step: bool


ONE = Load("1", 1, 10.0, in_step=True)
IN_STEP = Load("32 in step", 32, 40.0, in_step=True)
APART = Load("32 apart", 32, 40.0, in_step=False)


@dataclass
class Target:
    """A server to measure, and the figures of its streams; `pid` is the process that counts."""

    name: str
    url: str
    body: dict[str, object]
    pid: int | None = None
    first_ms: list[float] = field(default_factory=list)
    gaps_ms: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0
    seconds: float = 0.0

    def run_streams(self, number: int) -> None:
        """Read this many streams at once, each on a connection of its own."""
        pids = () if self.pid is None else (self.pid,)
        before, began = cpu_seconds(pids), time.perf_counter()
        for times in _token_times([self._send_request() for _ in range(number)]):
            self.first_ms.append((times[0] - began) * 1000)
            self.gaps_ms += [(b - a) * 1000 for a, b in pairwise(times)]
        self.cpu_seconds += cpu_seconds(pids) - before
        self.seconds += time.perf_counter() - began

    def _send_request(self) -> socket.socket:
        parts, body = urlsplit(self.url), json.dumps(self.body)
        head = (f"{name}: {value}" for name, value in _HEADERS.items())
        lines = [f"POST {parts.path} HTTP/1.1", *head, f"Content-Length: {len(body)}", "", body]
        connection = socket.create_connection((parts.hostname, parts.port))
        connection.sendall("\r\n".join(lines).encode())
        return connection


def _token_times(connections: list[socket.socket]) -> list[list[float]]:
    """Return the time at which each token arrived, for each connection.

    One thread reads all of them: many threads would compete with the worker for the processors.
    """
    all_times: list[list[float]] = []
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            all_times.append([])
            selector.register(connection, selectors.EVENT_READ, all_times[-1])
        while selector.get_map():
            for key, _ in selector.select():
                connection, times = cast("socket.socket", key.fileobj), key.data
                piece = connection.recv(65536)
                times += [time.perf_counter()] * _tokens(piece)
                if not piece:
                    selector.unregister(connection)
                    connection.close()
    return all_times


def _tokens(piece: bytes) -> int:
    if piece.startswith(b"HTTP/1.1") and not piece.startswith(b"HTTP/1.1 200"):
        raise SystemExit(piece.decode())
    # The field is `text` in MES, and `response` in the runtime, where it is empty in the last line.
    return piece.count(b'"text":"') + piece.count(b'"response":"') - piece.count(b'"response":""')


@dataclass(frozen=True)
class Row:
    """The figures of one target under one load."""

    first_ms: float
    first_ms_99: float
    gap_ms: float
    gap_ms_99: float
    cpu_us: float


def main() -> None:
    options = _options()
    with FakeOllama(f"--models={MODEL}") as runtime, _minimal_proxy(runtime) as proxy:
        models = {MODEL: {"max_concurrent": 32, "max_tokens": 100_000}}
        with checkouts.services(options.beside, ollama_url=runtime.url, models=models) as services:
            for service in services.values():
                service.infer(MODEL)
            direct = Target("direct", f"{runtime.url}/api/generate", _DIRECTLY)
            targets = [direct, *(_target(*each) for each in services.items()), proxy]
            idle = {name: _idle_cpu(service) for name, service in services.items()}
            print(f"{'streams':10} {'target':6} {'first ms':>9} {'99 %':>7}", end="")
            print(f" {'gap ms':>7} {'99 %':>7} {'CPU us/token':>13}")
            rows: dict[tuple[Load, str], Row] = {}
            for load in (ONE, IN_STEP, APART):
                for name, row in _compare(targets, runtime, load, options, idle).items():
                    rows[load, name] = row
                    _show(load, name, row)
    _compare_with_targets(rows)


def _target(name: str, service: Service) -> Target:
    body: dict[str, object] = {"prompt": PROMPT, "stream": True, "model_id": MODEL}
    return Target(name, f"{service.url}/v1/inference", body, service.worker_pids()[0])


@contextmanager
def _minimal_proxy(runtime: FakeOllama) -> Iterator[Target]:
    port, runtime_port = process.free_port(), urlsplit(runtime.url).port
    program = [sys.executable, "-m", "bench.minimal_proxy", str(port), str(runtime_port)]
    with subprocess.Popen(program) as running:
        try:
            yield Target("proxy", f"http://127.0.0.1:{port}/api/generate", _DIRECTLY, running.pid)
        finally:
            running.terminate()


def _idle_cpu(service: Service) -> float:
    """Return the CPU seconds per second of the worker without requests."""
    pids, seconds = service.worker_pids(), 5.0
    before = cpu_seconds(pids)
    time.sleep(seconds)
    return (cpu_seconds(pids) - before) / seconds


def _compare(
    targets: list[Target],
    runtime: FakeOllama,
    load: Load,
    options: argparse.Namespace,
    idle: dict[str, float],
) -> dict[str, Row]:
    runtime.control(ms_per_token=load.ms_per_token, in_step=load.in_step)
    long, short = deepcopy(targets), deepcopy(targets)
    for _ in range(options.rounds):
        for group, tokens in ((long, options.tokens), (short, 1)):
            runtime.control(tokens=tokens)
            for target in group:
                target.run_streams(load.streams)
    return {
        target.name: _row(target, one_token, idle.get(target.name, 0.0))
        for target, one_token in zip(long, short, strict=True)
    }


def _row(target: Target, one_token: Target, idle: float) -> Row:
    extra = target.cpu_seconds - one_token.cpu_seconds - idle * (target.seconds - one_token.seconds)
    return Row(
        first_ms=statistics.median(target.first_ms),
        first_ms_99=percentile(target.first_ms, 99),
        gap_ms=statistics.median(target.gaps_ms),
        gap_ms_99=percentile(target.gaps_ms, 99),
        cpu_us=extra / len(target.gaps_ms) * 1e6,
    )


def _show(load: Load, name: str, row: Row) -> None:
    print(f"{load.name:10} {name:6} {row.first_ms:9.2f} {row.first_ms_99:7.2f}", end="")
    print(f" {row.gap_ms:7.2f} {row.gap_ms_99:7.2f}", end="")
    print(f" {'-':>13}" if name == "direct" else f" {row.cpu_us:13.1f}")


def _compare_with_targets(rows: dict[tuple[Load, str], Row]) -> None:
    delay = rows[ONE, "mes"].first_ms - rows[ONE, "direct"].first_ms
    print()
    _print_verdict("first token of 1 stream, delay", delay, MAX_DELAY_MS, "ms")
    for load in (IN_STEP, APART):
        mes, direct = rows[load, "mes"], rows[load, "direct"]
        ratio = mes.gap_ms_99 / direct.gap_ms_99
        _print_verdict(f"CPU per token of {load.name}", mes.cpu_us, MAX_CPU_US, "us")
        _print_verdict(f"99 % of gaps of {load.name}, to direct", ratio, MAX_GAP_RATIO, "times")
    for load in (ONE, IN_STEP, APART):
        times = rows[load, "mes"].cpu_us / rows[load, "proxy"].cpu_us
        print(f"        CPU per token of {load.name}, to the minimal proxy's: {times:.1f} times")


def _print_verdict(name: str, value: float, limit: float, unit: str) -> None:
    verdict = "met" if value <= limit else "MISSED"
    print(f"{verdict:7} {name}: {value:.2f} {unit} (at most {limit:g})")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    checkouts.add_option(parser)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=200, help="in each long answer (200)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
