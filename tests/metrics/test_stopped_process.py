"""A stopped process that holds the lock on the counters delays no request; nothing is lost."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from mes.config import timed_lock
from mes.config.catalog import CatalogFile
from mes.metrics.counters import RequestCounters
from tests.fakes import eventually
from tests.support.lock_holder import stopped_holder
from tests.support.service import catalog

FIELDS = {"method": "GET", "path": "/health", "status": 200, "code": None, "ms": 1.0}


@pytest.fixture
def counters(tmp_path):
    models = CatalogFile(catalog(tmp_path / "models.json"), 30.0)
    with closing(RequestCounters(tmp_path, models.current)) as counters:
        yield counters


@pytest.fixture
def path(counters, tmp_path):
    count(counters, 1)
    (path,) = tmp_path.glob("metrics-*.counts")
    return path


def count(counters, times):
    for _ in range(times):
        counters.count(FIELDS, route="/health")


def total(counters):
    """Return how many requests the file has counted."""
    return sum(round(numbers[0]) for numbers in counters.rows().values())


@pytest.mark.parametrize("free", ["resume", "kill"])
def test_requests_are_counted_once_the_lock_is_free(counters, path, free):
    with stopped_holder(path) as holder:
        count(counters, 5)
        assert total(counters) == 1, "the file is read without the lock"
        getattr(holder, free)()
        eventually(lambda: total(counters) == 6)
    count(counters, 1)
    assert total(counters) == 7


def test_a_request_waits_for_the_lock_for_a_moment_only(counters, path, monkeypatch):
    waits = []
    monkeypatch.setattr(timed_lock.ProcessLock, "_retry", lambda _, by: waits.append(by))
    with stopped_holder(path):
        began = time.monotonic()
        count(counters, 1)
    assert waits[0] - began < 0.1


def test_a_lock_that_stays_taken_is_logged_once_with_its_holder(
    counters, path, monkeypatch, caplog
):
    caplog.set_level("INFO")
    counters._file._lock.timeout_seconds = 0.1
    with stopped_holder(path) as holder:
        count(counters, 3)
        eventually(lambda: logged(caplog, "metrics_locked"))
        count(counters, 3)
    eventually(lambda: logged(caplog, "metrics_unlocked"))
    (record,) = logged(caplog, "metrics_locked")
    assert (record.holder, record.holder_state) == (holder.pid, "stopped")
    eventually(lambda: total(counters) == 7)


def logged(caplog, event):
    return [record for record in caplog.records if record.message == event]


def test_a_worker_that_ends_counts_what_was_delayed(tmp_path, counters, path):
    models = CatalogFile(tmp_path / "models.json", 30.0)
    ending = RequestCounters(tmp_path, models.current)
    with stopped_holder(path) as holder:
        count(ending, 4)
        holder.resume()
    ending.close()
    assert total(counters) == 5


def test_a_worker_that_ends_before_the_lock_is_free_logs_that_counts_are_lost(
    tmp_path, counters, path, caplog
):
    models = CatalogFile(tmp_path / "models.json", 30.0)
    ending = RequestCounters(tmp_path, models.current)
    ending._file._lock.timeout_seconds = 0.05
    with stopped_holder(path):
        count(ending, 4)
        ending.close()
    assert len(logged(caplog, "metrics_lost")) == 1
    assert total(counters) == 1
