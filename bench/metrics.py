"""What counting a request costs, and what a scrape costs; the same with prometheus-client's way.

    python -m bench.metrics

CPU per observation of an answered inference: by one process alone, and by four that all count at
once on the same ledger. Then a scrape after a thousand workers have died. The library's way for
several processes keeps a file for each that ever was, so its scrape is measured with as many.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from mes.config.catalog import Catalog
from mes.metrics.collector import request_metrics
from mes.metrics.counters import RequestCounters
from mes.metrics.definitions import DEFINITIONS
from tests.fakes import spec

REQUESTS = 5000
ROUNDS = 5
DEATHS = 1000
CATALOG = Catalog((spec("mistral:7b"),))
FACTS = {
    "method": "POST",
    "status": 200,
    "code": None,
    "ms": 812.4,
    "model": "mistral:7b",
    "usage": {"prompt_tokens": 31, "completion_tokens": 14},
    "timings": {
        "queue_ms": 3,
        "load_ms": 0,
        "generation_ms": 740,
        "time_to_first_token_ms": 71,
    },
    "verdict": "valid",
    "attempts": 1,
}


def main() -> None:
    if "--library" in sys.argv:
        _library()
        return
    with TemporaryDirectory(dir="/dev/shm") as folder:
        request_counters = RequestCounters(Path(folder), lambda: CATALOG)
        print(
            f"ledger: one process      {_cost(lambda: _note(request_counters)):6.1f} us a request"
        )
        print(f"ledger: four at once     {_crowded(Path(folder)):6.1f} us a request")
        seconds = _seconds(lambda: list(request_metrics(request_counters.rows(), CATALOG)))
        print(f"ledger: scrape           {seconds * 1e3:6.1f} ms, however many workers died")
    with TemporaryDirectory(dir="/dev/shm") as folder:
        # The library asks for its directory when it is imported, so it needs a process of its own.
        environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": folder}
        command = [sys.executable, "-m", "bench.metrics", "--library"]
        subprocess.run(command, env=environment, check=True)


def _note(request_counters: RequestCounters) -> None:
    request_counters.note(FACTS, route="/v1/inference")


def _cost(act: Callable[[], object]) -> float:
    """Microseconds of CPU; the median of some rounds."""
    rounds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(REQUESTS):
            act()
        rounds.append((time.process_time() - began) / REQUESTS * 1e6)
    return statistics.median(rounds)


def _crowded(folder: Path) -> float:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        return statistics.median(pool.map(_cost_in, [folder] * 4))


def _cost_in(folder: Path) -> float:
    request_counters = RequestCounters(folder, lambda: CATALOG)
    return _cost(lambda: _note(request_counters))


def _seconds(act: Callable[[], object]) -> float:
    began = time.process_time()
    act()
    return time.process_time() - began


def _library() -> None:
    """The same measures with the library's own histograms, in its multiprocess mode."""
    from prometheus_client import CollectorRegistry, Histogram, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    histograms = [
        Histogram(f"measure_{number}", measure.help, list(measure.labels), buckets=measure.bounds)
        for number, measure in enumerate(DEFINITIONS)
    ]
    values = [(measure, measure.of(FACTS)) for measure in DEFINITIONS]

    def note() -> None:
        for histogram, (measure, value) in zip(histograms, values, strict=True):
            histogram.labels(*measure.labels.values()).observe(value)

    print(f"library: one process     {_cost(note):6.1f} us a request")
    (ours,) = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob("histogram_*.db")
    for number in range(DEATHS):
        shutil.copy(ours, ours.with_name(f"histogram_{10**7 + number}.db"))
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    seconds = _seconds(lambda: generate_latest(registry))
    megabytes = sum(file.stat().st_size for file in ours.parent.iterdir()) / 1e6
    print(f"library: scrape          {seconds * 1e3:6.1f} ms after {DEATHS} deaths", end=" ")
    print(f"({megabytes:.0f} MB of files)")


if __name__ == "__main__":
    main()
