"""The keeper: it goes on whatever it finds, and says each thing once."""

from __future__ import annotations

import logging
import os
from contextlib import closing

import pytest

from mes.scheduling.file_lock import InstanceLock
from mes.scheduling.leader import Leader
from mes.scheduling.runtime_status import RuntimeStatusFile
from mes.scheduling.shared_resources import open_shared_file
from tests.fakes import eventually

DEAD = "999999999-1-dead"


class Rounds:
    """Errands that only count."""

    is_busy = False
    number = 0

    def run(self):
        self.number += 1


@pytest.fixture
def keep(make, tmp_path):
    """Let a worker be the keeper until the test ends; its rounds, and its runtime_status."""
    with closing(open_shared_file(tmp_path / "runtime_status.json", 1000)) as file:
        runtime_status, rounds, bench = RuntimeStatusFile(file), Rounds(), make()
        leader = Leader(
            tmp_path,
            coordinator=bench.coordinator,
            worker=bench.worker,
            reconciler=rounds,
            runtime_status=runtime_status,
            instance_lock=InstanceLock(tmp_path, master=os.getpid(), address="nowhere"),
        )

        def start():
            leader.start()
            eventually(lambda: rounds.number > 3)
            return runtime_status.current()

        yield start
        leader.stop()
        runtime_status.close()


def said(caplog, event):
    return [record for record in caplog.records if record.message == event]


def test_what_a_dead_worker_has_left_is_swept(keep, tmp_path, caplog):
    (tmp_path / "workers").mkdir(exist_ok=True)
    (tmp_path / "workers" / f"{DEAD}.wakeup").touch()
    keep()
    assert not (tmp_path / "workers" / f"{DEAD}.wakeup").exists()
    assert len(said(caplog, "workers_died")) == 1


def test_what_cannot_be_swept_is_said_once_and_holds_up_nothing(keep, tmp_path, caplog):
    (tmp_path / "workers" / f"{DEAD}.wakeup").mkdir(parents=True)  # which cannot be unlinked
    assert keep().state_dir == ""
    assert len(said(caplog, "workers_died")) == 1
    assert said(caplog, "leader_failed") == []


def test_a_directory_that_cannot_be_written_is_said_once(keep, monkeypatch, caplog):
    caplog.set_level(logging.INFO)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mes.scheduling.coordinator.Coordinator.save", full)
    assert "No space left" in keep().state_dir
    assert len(said(caplog, "state_dir_unusable")) == 1


def test_the_ownership_of_a_directory_that_was_deleted_is_taken_again(keep, tmp_path):
    keep()
    assert b"at nowhere" in (tmp_path / "instance.lock").read_bytes()
    other = InstanceLock(tmp_path, master=1, address="elsewhere")
    assert not other.try_acquire()
