"""The overhead of MES: CPU of the worker per request, added latency, requests per second.

Runs MES with one worker over a runtime that answers at once with 8 streamed tokens. Sends requests
over kept-alive connections with 1 and with 8 clients, to MES and to the runtime directly. Another
service that is already running can be measured in the same rounds:

    python -m bench.overhead
    python -m bench.overhead --peer http://127.0.0.1:4000/v1/chat/completions --peer-pid 1234 \\
        --peer-body '{"model": "m", "messages": [...]}' --peer-header 'Authorization: Bearer k'

Another checkout of MES is measured in the same rounds with `--beside NAME=FOLDER`.

CPU is the user and system time of the process as the kernel counts it (in ticks of 10 ms, so use
thousands of requests). Rounds alternate between the targets; the table has the medians.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from bench import checkouts
from tests.support.service import KEY, FakeOllama, Service

MODEL = "instant:1b"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Target:
    """A service to measure; `pids` are the processes whose CPU time counts."""

    name: str
    url: str
    body: dict[str, object]
    headers: dict[str, str] = field(default_factory=dict)
    pids: tuple[int, ...] = ()

    def cpu_seconds(self) -> float:
        return sum(_cpu_seconds(pid) for pid in self.pids)


@dataclass
class Round:
    """The figures of one round."""

    cpu_ms: float
    median_ms: float
    per_second: float


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def measure(target: Target, clients: int, requests: int) -> Round:
    """Send `requests` requests over `clients` connections."""
    times: list[float] = []
    threads = [
        threading.Thread(target=_send_requests, args=(target, requests // clients, times))
        for _ in range(clients)
    ]
    cpu, began = target.cpu_seconds(), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    return Round(
        cpu_ms=(target.cpu_seconds() - cpu) / len(times) * 1000,
        median_ms=statistics.median(times) * 1000,
        per_second=len(times) / seconds,
    )


def _send_requests(target: Target, requests: int, times: list[float]) -> None:
    parts = urlsplit(target.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    body = json.dumps(target.body)
    headers = {"Content-Type": "application/json", **target.headers}
    for _ in range(requests):
        began = time.perf_counter()
        connection.request("POST", parts.path, body, headers)
        response = connection.getresponse()
        content = response.read()
        times.append(time.perf_counter() - began)
        if response.status != 200:
            raise SystemExit(f"{target.name} answered {response.status}: {content[:300]!r}")
    connection.close()


def show(target: Target, clients: int, rounds: list[Round]) -> None:
    cpu, latency, rate = (
        statistics.median(getattr(each, name) for each in rounds)
        for name in ("cpu_ms", "median_ms", "per_second")
    )
    cpu_column = f"{cpu:8.2f}" if target.pids else "       -"
    print(f"{target.name:12} {clients:7} {cpu_column} {latency:12.2f} {rate:12.0f}")


def main() -> None:
    options = _options()
    with FakeOllama("--instant", f"--models={MODEL}") as runtime:
        models = {MODEL: {"max_concurrent": 8}}
        with checkouts.services(options.beside, ollama_url=runtime.url, models=models) as services:
            targets = [
                *(_target(name, service) for name, service in services.items()),
                Target(
                    "direct",
                    f"{runtime.url}/api/generate",
                    {"model": MODEL, "prompt": "The capital of France?", "stream": True},
                ),
                *_peers(options),
            ]
            _compare(targets, options.requests, options.rounds)


def _target(name: str, service: Service) -> Target:
    return Target(
        name,
        f"{service.url}/v1/inference",
        {"model_id": MODEL, "prompt": "The capital of France?"},
        {"Authorization": f"Bearer {KEY}"},
        tuple(service.worker_pids()),
    )


def _compare(targets: list[Target], requests: int, rounds: int) -> None:
    print(f"{'target':12} {'clients':>7} {'CPU ms':>8} {'median ms':>12} {'requests/s':>12}")
    for clients in (1, 8):
        results: dict[str, list[Round]] = {target.name: [] for target in targets}
        for target in targets:
            measure(target, clients, 100)
        for _ in range(rounds):
            for target in targets:
                results[target.name].append(measure(target, clients, requests))
        for target in targets:
            show(target, clients, results[target.name])


def _peers(options: argparse.Namespace) -> list[Target]:
    if options.peer is None:
        return []
    headers = dict(header.split(": ", 1) for header in options.peer_header)
    body = json.loads(options.peer_body)
    return [Target("peer", options.peer, body, headers, tuple(options.peer_pid))]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=2000, help="in each round (2000)")
    parser.add_argument("--rounds", type=int, default=3, help="for each target (3)")
    checkouts.add_option(parser)
    parser.add_argument("--peer", metavar="URL", help="another service to measure beside MES")
    parser.add_argument("--peer-body", metavar="JSON", default="{}")
    parser.add_argument("--peer-header", metavar="HEADER", action="append", default=[])
    parser.add_argument("--peer-pid", metavar="PID", type=int, action="append", default=[])
    return parser.parse_args()


if __name__ == "__main__":
    main()
