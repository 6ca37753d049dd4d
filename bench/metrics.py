"""Measure the cost of counting a request and of a scrape, with MES and with prometheus-client.

    python -m bench.metrics

Prints the CPU time for counting one successful inference: by one process alone, and by each of four
processes that count into the same file. Then the CPU time of a scrape. prometheus-client's
multiprocess mode keeps a file for each worker that ever ran, so its scrape is measured with the
files of a thousand dead workers.
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
DEAD_WORKERS = 1000
CATALOG = Catalog((spec("mistral:7b"),))
FIELDS = {
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
            f"MES: one process         {_cost(lambda: _count(request_counters)):6.1f} us a request"
        )
        print(f"MES: four processes      {_cost_of_four(Path(folder)):6.1f} us a request")
        seconds = _seconds(lambda: list(request_metrics(request_counters.rows(), CATALOG)))
        print(f"MES: scrape              {seconds * 1e3:6.1f} ms, independent of dead workers")
    with TemporaryDirectory(dir="/dev/shm") as folder:
        # The library reads its directory when it is imported, so it needs another process.
        environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": folder}
        command = [sys.executable, "-m", "bench.metrics", "--library"]
        subprocess.run(command, env=environment, check=True)


def _count(request_counters: RequestCounters) -> None:
    request_counters.count(FIELDS, route="/v1/inference")


def _cost(function: Callable[[], object]) -> float:
    """Return the CPU time of a call in microseconds: the median of some rounds."""
    rounds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(REQUESTS):
            function()
        rounds.append((time.process_time() - began) / REQUESTS * 1e6)
    return statistics.median(rounds)


def _cost_of_four(folder: Path) -> float:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        return statistics.median(pool.map(_cost_in, [folder] * 4))


def _cost_in(folder: Path) -> float:
    request_counters = RequestCounters(folder, lambda: CATALOG)
    return _cost(lambda: _count(request_counters))


def _seconds(function: Callable[[], object]) -> float:
    began = time.process_time()
    function()
    return time.process_time() - began


def _library() -> None:
    """Measure the same with the library's own histograms, in its multiprocess mode."""
    from prometheus_client import CollectorRegistry, Histogram, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    histograms = [
        Histogram(f"metric_{number}", metric.help, list(metric.labels), buckets=metric.bounds)
        for number, metric in enumerate(DEFINITIONS)
    ]
    values = [(metric, metric.value(FIELDS)) for metric in DEFINITIONS]

    def observe() -> None:
        for histogram, (metric, value) in zip(histograms, values, strict=True):
            histogram.labels(*metric.labels.values()).observe(value)

    print(f"library: one process     {_cost(observe):6.1f} us a request")
    (file,) = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob("histogram_*.db")
    for number in range(DEAD_WORKERS):
        shutil.copy(file, file.with_name(f"histogram_{10**7 + number}.db"))
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    seconds = _seconds(lambda: generate_latest(registry))
    megabytes = sum(each.stat().st_size for each in file.parent.iterdir()) / 1e6
    scrape = f"{seconds * 1e3:6.1f} ms after {DEAD_WORKERS} dead workers"
    print(f"library: scrape          {scrape} ({megabytes:.0f} MB of files)")


if __name__ == "__main__":
    main()
