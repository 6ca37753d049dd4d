"""What a stream through MES is like: first token, gaps between tokens, CPU per token.

Runs MES with one worker over the fake runtime, and streams in turns from the runtime directly,
through MES, and through the least that Python can do in its place (`bench.bare_relay`):

    python -m bench.streaming
    python -m bench.streaming --rounds 20 --tokens 500
    python -m bench.streaming --beside without=../another-checkout

The loads: one stream, with a token every 10 ms; and 32 at once, each with a token every 40 ms (more
the fake cannot do evenly), `in step`, as llama.cpp's batches make them, or `apart`, each at a time
of its own.

CPU is the user and system time of the process for each token beyond the first: what long answers
cost more than answers of one token, less what an idle worker uses in as much time. A gap is how
long after one token the next one came.

Last it says whether the targets hold: a first token of one stream at most 5 ms later than directly;
at most 60 us of CPU for each token; and 32 streams at once as smooth as directly, which is to say
that the 99th percentile of their gaps is at most 1.25 times the direct one.
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

from bench import beside
from tests.integration.helpers import cpu_seconds, percentile
from tests.support import process
from tests.support.service import KEY, FakeOllama, Service

MODEL, PROMPT = "streamed:1b", "The capital of France?"
# Without `shift`, which MES sends, the runtime would load its model anew in each turn.
_DIRECTLY: dict[str, object] = {"model": MODEL, "prompt": PROMPT, "stream": True, "shift": False}
MOST_LATER_MS, MOST_CPU_US, MOST_GAP_RATIO = 5.0, 60.0, 1.25
_HEADERS = {
    "Host": "bench",
    "Authorization": f"Bearer {KEY}",
    "Content-Type": "application/json",
    "Connection": "close",
}


@dataclass(frozen=True)
class Load:
    """So many streams at once, and when their tokens come."""

    name: str
    streams: int
    ms_per_token: float
    in_step: bool


ONE = Load("1", 1, 10.0, in_step=True)
IN_STEP = Load("32 in step", 32, 40.0, in_step=True)
APART = Load("32 apart", 32, 40.0, in_step=False)


@dataclass
class Target:
    """Something that streams, the process whose CPU it costs, and what its clients saw."""

    name: str
    url: str
    body: dict[str, object]
    pid: int | None = None
    first_ms: list[float] = field(default_factory=list)
    gaps_ms: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0
    seconds: float = 0.0

    def streams(self, number: int) -> None:
        """So many at once, each on a connection of its own."""
        pids = () if self.pid is None else (self.pid,)
        before, began = cpu_seconds(pids), time.perf_counter()
        for came in _arrivals([self._ask() for _ in range(number)]):
            self.first_ms.append((came[0] - began) * 1000)
            self.gaps_ms += [(b - a) * 1000 for a, b in pairwise(came)]
        self.cpu_seconds += cpu_seconds(pids) - before
        self.seconds += time.perf_counter() - began

    def _ask(self) -> socket.socket:
        parts, body = urlsplit(self.url), json.dumps(self.body)
        head = (f"{name}: {value}" for name, value in _HEADERS.items())
        lines = [f"POST {parts.path} HTTP/1.1", *head, f"Content-Length: {len(body)}", "", body]
        connection = socket.create_connection((parts.hostname, parts.port))
        connection.sendall("\r\n".join(lines).encode())
        return connection


def _arrivals(connections: list[socket.socket]) -> list[list[float]]:
    """When each token came, for each connection.

    All are read in one thread: many would compete with the worker for its processors.
    """
    came: list[list[float]] = []
    with selectors.DefaultSelector() as arriving:
        for connection in connections:
            came.append([])
            arriving.register(connection, selectors.EVENT_READ, came[-1])
        while arriving.get_map():
            for key, _ in arriving.select():
                connection, times = cast("socket.socket", key.fileobj), key.data
                piece = connection.recv(65536)
                times += [time.perf_counter()] * _tokens(piece)
                if not piece:
                    arriving.unregister(connection)
                    connection.close()
    return came


def _tokens(piece: bytes) -> int:
    if piece.startswith(b"HTTP/1.1") and not piece.startswith(b"HTTP/1.1 200"):
        raise SystemExit(piece.decode())
    # MES says `text`, the runtime `response`, which it leaves empty in its last line.
    return piece.count(b'"text":"') + piece.count(b'"response":"') - piece.count(b'"response":""')


@dataclass(frozen=True)
class Row:
    """What one target's streams were like."""

    first_ms: float
    first_ms_99: float
    gap_ms: float
    gap_ms_99: float
    cpu_us: float


def main() -> None:
    options = _options()
    with FakeOllama(f"--models={MODEL}") as runtime, _bare_relay(runtime) as bare:
        models = {MODEL: {"max_concurrent": 32, "max_tokens": 100_000}}
        with beside.services(options.beside, ollama_url=runtime.url, models=models) as services:
            for service in services.values():
                service.infer(MODEL)
            direct = Target("direct", f"{runtime.url}/api/generate", _DIRECTLY)
            targets = [direct, *(_target(*each) for each in services.items()), bare]
            idle = {name: _idle_cpu(service) for name, service in services.items()}
            print(f"{'streams':10} {'target':6} {'first ms':>9} {'99 %':>7}", end="")
            print(f" {'gap ms':>7} {'99 %':>7} {'CPU us/token':>13}")
            rows: dict[tuple[Load, str], Row] = {}
            for load in (ONE, IN_STEP, APART):
                for name, row in _compare(targets, runtime, load, options, idle).items():
                    rows[load, name] = row
                    _show(load, name, row)
    _judge(rows)


def _target(name: str, service: Service) -> Target:
    asked: dict[str, object] = {"prompt": PROMPT, "stream": True, "model_id": MODEL}
    return Target(name, f"{service.url}/v1/inference", asked, service.worker_pids()[0])


@contextmanager
def _bare_relay(runtime: FakeOllama) -> Iterator[Target]:
    port, runtime_port = process.free_port(), urlsplit(runtime.url).port
    program = [sys.executable, "-m", "bench.bare_relay", str(port), str(runtime_port)]
    with subprocess.Popen(program) as running:
        try:
            yield Target("bare", f"http://127.0.0.1:{port}/api/generate", _DIRECTLY, running.pid)
        finally:
            running.terminate()


def _idle_cpu(service: Service) -> float:
    """What the worker uses in a second while nobody asks for anything."""
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
        for of_kind, tokens in ((long, options.tokens), (short, 1)):
            runtime.control(tokens=tokens)
            for target in of_kind:
                target.streams(load.streams)
    return {
        target.name: _row(target, of_one, idle.get(target.name, 0.0))
        for target, of_one in zip(long, short, strict=True)
    }


def _row(target: Target, of_one: Target, idle: float) -> Row:
    extra = target.cpu_seconds - of_one.cpu_seconds - idle * (target.seconds - of_one.seconds)
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


def _judge(rows: dict[tuple[Load, str], Row]) -> None:
    later = rows[ONE, "mes"].first_ms - rows[ONE, "direct"].first_ms
    print()
    _verdict("first token of 1 stream, later than directly", later, MOST_LATER_MS, "ms")
    for load in (IN_STEP, APART):
        mes, direct = rows[load, "mes"], rows[load, "direct"]
        ratio = mes.gap_ms_99 / direct.gap_ms_99
        _verdict(f"CPU for each token of {load.name}", mes.cpu_us, MOST_CPU_US, "us")
        _verdict(f"gaps of {load.name} (99 %), to direct ones", ratio, MOST_GAP_RATIO, "times")
    for load in (ONE, IN_STEP, APART):
        times = rows[load, "mes"].cpu_us / rows[load, "bare"].cpu_us
        print(f"        CPU for each token of {load.name}, to the bare relay's: {times:.1f} times")


def _verdict(what: str, value: float, most: float, unit: str) -> None:
    print(
        f"{'holds' if value <= most else 'MISSED':7} {what}: {value:.2f} {unit} (at most {most:g})"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    beside.add_option(parser)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=200, help="in each long answer (200)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
