"""The leader: it survives each failure, and logs each problem once."""

from __future__ import annotations

import errno
import logging
import os
from contextlib import closing
from dataclasses import replace

import pytest

from mes.domain import PulledModel
from mes.errors import StateDirFull
from mes.scheduling.file_lock import InstanceLock
from mes.scheduling.leader import Leader
from mes.scheduling.runtime_status import RuntimeStatus, RuntimeStatusFile
from mes.scheduling.shared_resources import open_shared_file
from tests.fakes import eventually

DEAD = "999999999-1-dead"


class CountingReconciler:
    """A reconciler that only counts its rounds."""

    is_busy = False
    rounds = 0
    error: Exception | None = None

    def run(self):
        self.rounds += 1
        if self.error is not None:
            raise self.error


@pytest.fixture
def reconciler():
    return CountingReconciler()


@pytest.fixture
def status_file(tmp_path):
    with closing(open_shared_file(tmp_path / "runtime_status.json", 1000)) as file:
        yield file


@pytest.fixture
def status(status_file):
    with closing(RuntimeStatusFile(status_file)) as status:
        yield status


@pytest.fixture
def lead(make, tmp_path, reconciler, status):
    """Let a worker be the leader until the test ends, and return the status after some rounds."""
    bench = make()
    leader = Leader(
        tmp_path,
        coordinator=bench.coordinator,
        worker=bench.worker,
        reconciler=reconciler,
        runtime_status=status,
        instance_lock=InstanceLock(tmp_path, master=os.getpid(), address="nowhere"),
    )

    def start():
        leader.start()
        run_rounds(reconciler)
        return status.current()

    yield start
    leader.stop()


def run_rounds(reconciler):
    last = reconciler.rounds + 4
    eventually(lambda: reconciler.rounds >= last)


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def logged(caplog, event):
    return [record for record in caplog.records if record.message == event]


def test_the_files_of_a_dead_worker_are_deleted(lead, tmp_path, caplog):
    (tmp_path / "workers").mkdir(exist_ok=True)
    (tmp_path / "workers" / f"{DEAD}.wakeup").touch()
    lead()
    assert not (tmp_path / "workers" / f"{DEAD}.wakeup").exists()
    assert len(logged(caplog, "workers_died")) == 1


def test_files_that_cannot_be_deleted_are_logged_once_and_stop_nothing(lead, tmp_path, caplog):
    (tmp_path / "workers" / f"{DEAD}.wakeup").mkdir(parents=True)  # a folder cannot be unlinked
    assert lead().state_dir == ""
    assert len(logged(caplog, "workers_died")) == 1
    assert logged(caplog, "leader_failed") == []


def test_a_directory_that_cannot_be_written_is_logged_once(lead, monkeypatch, caplog):
    caplog.set_level(logging.INFO)

    monkeypatch.setattr("mes.scheduling.coordinator.Coordinator.save", full_disk)
    assert "No space left" in lead().state_dir
    assert len(logged(caplog, "state_dir_unusable")) == 1


def test_the_lock_on_a_directory_that_was_deleted_is_taken_again(lead, tmp_path):
    lead()
    assert b"at nowhere" in (tmp_path / "instance.lock").read_bytes()
    other = InstanceLock(tmp_path, master=1, address="elsewhere")
    assert not other.try_acquire()


def test_a_transaction_that_fails_on_a_full_disk_is_logged_once(lead, reconciler, status, caplog):
    caplog.set_level(logging.INFO)
    reconciler.error = StateDirFull("STATE_DIR is full")
    lead()
    assert status.current().state_dir == "STATE_DIR is full"
    assert len(logged(caplog, "state_dir_unusable")) == 1
    assert logged(caplog, "leader_failed") == []
    reconciler.error = None
    run_rounds(reconciler)
    eventually(lambda: status.current().state_dir == "")
    assert len(logged(caplog, "state_dir_usable")) == 1


def test_a_runtime_status_that_does_not_fit_on_a_full_disk_is_logged_once(
    lead, reconciler, status, status_file, monkeypatch, caplog
):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(os, "posix_fallocate", full_disk)
    pulled = {f"{n}:latest": PulledModel(f"{n}:latest", "d" * 64, 1, "", "") for n in range(99)}
    run = reconciler.run

    def write_status():
        status.write(replace(status.current(), up=True, pulled=pulled))
        run()

    reconciler.run = write_status
    lead()
    with closing(RuntimeStatusFile(status_file)) as other_worker:
        reported = other_worker.current()
    assert (reported.up, reported.pulled) == (True, {})
    assert "No space left" in reported.state_dir
    assert status.current().pulled == pulled
    assert len(logged(caplog, "state_dir_unusable")) == 1
    assert logged(caplog, "leader_failed") == []
    monkeypatch.undo()
    run_rounds(reconciler)
    with closing(RuntimeStatusFile(status_file)) as other_worker:
        assert other_worker.current() == replace(RuntimeStatus(), up=True, pulled=pulled)
    assert len(logged(caplog, "state_dir_usable")) == 1
