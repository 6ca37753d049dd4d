"""What a stream through MES is like: first token, gaps between tokens, CPU per token.

Runs MES with one worker over the fake runtime, which says a token every 10 ms (to 32 streams at a
time every 40 ms: more it cannot do evenly), and streams through MES and from the runtime directly,
in turns:

    python -m bench.streaming
    python -m bench.streaming --rounds 20 --tokens 500

CPU is the user and system time of the worker for each token beyond the first: what long answers
cost more than answers of one token, less what an idle worker uses in as much time. A gap is how
long after one token the next one came.

Last it says whether the targets hold: a first token of one stream at most 5 ms later than directly;
at most 60 us of CPU for each token; and 32 streams at once as smooth as directly, which is to say
that the 99th percentile of their gaps is at most 1.25 times the direct one.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from tests.integration.helpers import cpu_seconds, percentile
from tests.support.service import KEY, FakeOllama, Service

MODEL = "streamed:1b"
MOST_LATER_MS, MOST_CPU_US, MOST_GAP_RATIO = 5.0, 60.0, 1.25
_HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}


@dataclass
class Target:
    """Something that streams, the processes whose CPU it costs, and what its clients saw."""

    name: str
    url: str
    body: dict[str, object]
    pids: tuple[int, ...] = ()
    first_ms: list[float] = field(default_factory=list)
    gaps_ms: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0
    seconds: float = 0.0

    def stream(self) -> None:
        """One stream, on a connection of its own."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
        connection.connect()
        began = time.perf_counter()
        connection.request("POST", parts.path, json.dumps(self.body), _HEADERS)
        came = _arrivals(connection.getresponse())
        connection.close()
        self.first_ms.append((came[0] - began) * 1000)
        self.gaps_ms += [(b - a) * 1000 for a, b in pairwise(came)]

    def streams(self, number: int) -> None:
        """So many at once."""
        threads = [threading.Thread(target=self.stream) for _ in range(number)]
        before, began = cpu_seconds(self.pids), time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.cpu_seconds += cpu_seconds(self.pids) - before
        self.seconds += time.perf_counter() - began


def _arrivals(response: http.client.HTTPResponse) -> list[float]:
    """When each token came."""
    if response.status != 200:
        raise SystemExit(f"{response.status}: {response.read()!r}")
    came: list[float] = []
    while piece := response.read1(65536):
        now = time.perf_counter()
        # MES says `text`, the runtime `response`, which it leaves empty in its last line.
        tokens = piece.count(b'"text":"') + piece.count(b'"response":"')
        came += [now] * (tokens - piece.count(b'"response":""'))
    return came


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
    with TemporaryDirectory() as folder, FakeOllama(f"--models={MODEL}") as runtime:
        models = {MODEL: {"max_concurrent": 32, "max_tokens": 100_000}}
        with Service(
            Path(folder), ollama_url=runtime.url, models=models, WEB_CONCURRENCY=1
        ) as service:
            service.wait_until_ready()
            service.infer(MODEL)
            idle = _idle_cpu(service)
            print(f"{'target':8} {'streams':>7} {'first ms':>9} {'99 %':>7}", end="")
            print(f" {'gap ms':>7} {'99 %':>7} {'CPU us/token':>13}")
            rows: dict[tuple[str, int], Row] = {}
            for number, ms_per_token in ((1, 10.0), (32, 40.0)):
                runtime.control(ms_per_token=ms_per_token)
                for name, row in _compare(service, runtime, number, options, idle).items():
                    rows[name, number] = row
                    _show(name, number, row)
    _judge(rows)


def _idle_cpu(service: Service) -> float:
    """What the worker uses in a second while nobody asks for anything."""
    pids, seconds = service.worker_pids(), 5.0
    before = cpu_seconds(pids)
    time.sleep(seconds)
    return (cpu_seconds(pids) - before) / seconds


def _compare(
    service: Service, runtime: FakeOllama, number: int, options: argparse.Namespace, idle: float
) -> dict[str, Row]:
    long = _targets(service, runtime)
    short = _targets(service, runtime)
    for _ in range(options.rounds):
        for targets, tokens in ((long, options.tokens), (short, 1)):
            runtime.control(tokens=tokens)
            for target in targets:
                target.streams(number)
    return {
        target.name: _row(target, of_one, idle) for target, of_one in zip(long, short, strict=True)
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


def _targets(service: Service, runtime: FakeOllama) -> list[Target]:
    asked: dict[str, object] = {"prompt": "The capital of France?", "stream": True}
    # Without `shift`, which MES sends, the runtime would load its model anew in each turn.
    direct = {"model": MODEL, "shift": False, **asked}
    pids = tuple(service.worker_pids())
    return [
        Target("direct", f"{runtime.url}/api/generate", direct),
        Target("mes", f"{service.url}/v1/inference", {"model_id": MODEL, **asked}, pids),
    ]


def _show(name: str, number: int, row: Row) -> None:
    print(f"{name:8} {number:7} {row.first_ms:9.2f} {row.first_ms_99:7.2f}", end="")
    print(f" {row.gap_ms:7.2f} {row.gap_ms_99:7.2f}", end="")
    print(f" {row.cpu_us:13.1f}" if name == "mes" else f" {'-':>13}")


def _judge(rows: dict[tuple[str, int], Row]) -> None:
    later = rows["mes", 1].first_ms - rows["direct", 1].first_ms
    ratio = rows["mes", 32].gap_ms_99 / rows["direct", 32].gap_ms_99
    print()
    _verdict("first token of 1 stream, later than directly", later, MOST_LATER_MS, "ms")
    _verdict("CPU for each token of 32 streams", rows["mes", 32].cpu_us, MOST_CPU_US, "us")
    _verdict("gaps of 32 streams (99 %), to direct ones", ratio, MOST_GAP_RATIO, "times")


def _verdict(what: str, value: float, most: float, unit: str) -> None:
    print(
        f"{'holds' if value <= most else 'MISSED':7} {what}: {value:.2f} {unit} (at most {most:g})"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=200, help="in each long answer (200)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
