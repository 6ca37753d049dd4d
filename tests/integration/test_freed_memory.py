"""Memory: what large answers took is the machine's again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.process import wait_until

MODEL = "phi3:mini"
CALLERS, REQUESTS = 12, 120


def test_the_memory_of_large_answers_is_given_back(service, fake_ollama):
    running = service(models={MODEL: {"max_concurrent": CALLERS}}, WEB_CONCURRENCY=1)
    running.wait_until_ready()
    (worker,) = running.worker_pids()
    crowd(running)
    before = resident_kb(worker)

    fake_ollama.control(reply="x" * 4_000_000)
    crowd(running)
    fake_ollama.control(reply="x")
    crowd(running)  # so that no thread has a large answer in its hands

    wait_until(lambda: resident_kb(worker) < 2 * before, why="it gives back what it has freed")


def crowd(running) -> None:
    with ThreadPoolExecutor(CALLERS) as clients:
        answers = clients.map(lambda _: running.infer(MODEL).status_code, range(REQUESTS))
        assert set(answers) == {200}


def resident_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
