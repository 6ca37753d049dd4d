"""The memory of large answers is given back to the operating system."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.process import wait_until

MODEL = "phi3:mini"
CLIENTS, REQUESTS = 12, 120


def test_the_memory_of_large_answers_is_given_back(service, fake_ollama):
    running = service(models={MODEL: {"max_concurrent": CLIENTS}}, WEB_CONCURRENCY=1)
    running.wait_until_ready()
    (worker,) = running.worker_pids()
    send_many(running)
    before = resident_kb(worker)

    fake_ollama.control(reply="x" * 4_000_000)
    send_many(running)
    fake_ollama.control(reply="x")
    send_many(running)  # so that no thread still refers to a large answer

    wait_until(lambda: resident_kb(worker) < 2 * before, why="freed memory is given back")


def send_many(running) -> None:
    with ThreadPoolExecutor(CLIENTS) as clients:
        answers = clients.map(lambda _: running.infer(MODEL).status_code, range(REQUESTS))
        assert set(answers) == {200}


def resident_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
