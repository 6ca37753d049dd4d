"""Tests of the counter file: nothing is lost or counted twice.

Processes and threads add at the same time, are killed, or damage the file.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from mes.metrics.counters import CounterFile

BOTH = ((0, 1.0), (3, 0.5))
PROCESSES = multiprocessing.get_context("spawn")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.counts"


@pytest.fixture
def counter_file(path: Path) -> CounterFile:
    return CounterFile(path, width=4)


def rows(counter_file: CounterFile) -> dict[bytes, list[float]]:
    return {key: list(numbers) for key, numbers in counter_file.read().items()}


def add_many(path: Path, keys: list[bytes], times: int) -> None:
    counter_file = CounterFile(path, width=4)
    for _ in range(times):
        for key in keys:
            counter_file.add(key, BOTH)


def test_added_amounts_are_seen_by_other_processes(path, counter_file):
    counter_file.add(b"a", BOTH)
    counter_file.add(b"a", [(0, 2.0)])
    counter_file.add(b"b", [(1, 7.0)])
    assert rows(CounterFile(path, width=4)) == {b"a": [3, 0, 0, 0.5], b"b": [0, 7, 0, 0]}


def test_a_new_file_has_no_rows(counter_file):
    assert rows(counter_file) == {}


def test_processes_that_add_at_once_lose_nothing(path, counter_file):
    keys = [b"a", b"b", b"c"]
    workers = [
        PROCESSES.Process(target=add_many, args=(path, keys[n:] + keys[:n], 1000)) for n in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert rows(counter_file) == {key: [3000, 0, 0, 1500] for key in keys}


def test_threads_that_add_at_once_lose_nothing(counter_file):
    def add() -> None:
        for _ in range(1000):
            counter_file.add(b"a", BOTH)

    threads = [threading.Thread(target=add, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert rows(counter_file) == {b"a": [4000, 0, 0, 2000]}


def test_a_killed_writer_has_added_all_or_nothing_and_blocks_no_other(path, counter_file):
    for _ in range(5):
        worker = PROCESSES.Process(target=add_many, args=(path, [b"a", b"b"], 10**9))
        worker.start()
        before = rows(counter_file)
        deadline = time.monotonic() + 30
        while rows(counter_file) == before:
            assert time.monotonic() < deadline
        os.kill(worker.pid, signal.SIGKILL)
        worker.join(30)
        assert all(numbers[0] == 2 * numbers[3] for numbers in rows(counter_file).values())
    assert path.stat().st_size == 2 * 2048


@pytest.mark.parametrize("left", [0, 1000, 2048, 3000])
def test_counting_starts_again_in_a_truncated_file(path, counter_file, left):
    for key in (b"a", b"b"):
        counter_file.add(key, BOTH)
    os.truncate(path, left)
    for key in (b"b", b"a", b"b"):
        counter_file.add(key, BOTH)
    assert rows(counter_file)[b"b"] == [2, 0, 0, 1]
    assert rows(counter_file)[b"a"][0] == (2 if left >= 2048 else 1)


def test_a_deleted_file_is_created_again_for_all(path, counter_file):
    other = CounterFile(path, width=4)
    for each in (counter_file, other):
        each.add(b"a", BOTH)
    path.unlink()
    for each in (counter_file, other, counter_file):
        each.add(b"a", BOTH)
    assert rows(counter_file) == rows(other) == {b"a": [3, 0, 0, 1.5]}


def test_garbage_in_the_file_does_not_prevent_counting(path, counter_file):
    counter_file.add(b"a", BOTH)
    path.write_bytes(os.urandom(5000))
    for _ in range(2):
        counter_file.add(b"a", BOTH)
    assert rows(counter_file)[b"a"] == [2, 0, 0, 1]


def test_a_file_that_cannot_be_written_raises_an_error(path, counter_file):
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        counter_file.add(b"a", BOTH)
    path.rmdir()
    counter_file.add(b"a", BOTH)
    assert rows(counter_file) == {b"a": [1, 0, 0, 0.5]}
