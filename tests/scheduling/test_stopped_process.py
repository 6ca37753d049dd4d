"""A stopped process that holds a lock delays the others until a deadline, and no longer."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from types import SimpleNamespace

import pytest

from mes.config import timed_lock
from mes.config.timed_lock import LockTimeout, ProcessLock, TimedLock, holder_of
from mes.errors import StateLocked
from mes.scheduling.file_lock import FileLock, InstanceLock
from mes.scheduling.leader import Leader
from mes.scheduling.runtime_status import RuntimeStatus, RuntimeStatusFile
from mes.scheduling.shared_resources import SharedResources, open_shared_file
from tests.fakes import client, eventually, in_thread, spec
from tests.support.lock_holder import stopped_holder

FREE = ("resume", "kill")


@pytest.fixture
def path(tmp_path):
    """The registry file of the schedulers that `make` returns."""
    return tmp_path / "registry.json"


@pytest.fixture
def no_waiting(monkeypatch):
    """Return a function after whose call each wait for a lock is an error."""

    def refuse(*_):
        raise AssertionError("it waits")

    return lambda: monkeypatch.setattr(timed_lock, "doubling_pauses", refuse)


def events(caplog, *names):
    return [record.message for record in caplog.records if record.message in names]


# The locks


@pytest.fixture
def file(tmp_path):
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield ProcessLock(fd)
    os.close(fd)


def test_the_process_that_holds_a_lock_is_named_with_its_state(file, tmp_path):
    assert holder_of(file.fileno()) is None
    with stopped_holder(tmp_path / "file") as holder:
        found = holder_of(file.fileno())
        assert str(found) == f"process {holder.pid} (stopped)"
        assert found.remedy == (
            f"continue it (kill -CONT {holder.pid}) or end it (kill -9 {holder.pid})"
        )
    with file:
        assert str(holder_of(file.fileno())) == f"process {os.getpid()} (running)"


def test_a_process_that_is_traced_is_named_as_such():
    assert timed_lock.Holder(7, "stopped by a debugger").remedy == "end it (kill -9 7)"


@pytest.mark.parametrize("seconds", [0, 0.05])
def test_a_lock_that_is_not_free_in_time_is_not_taken(file, tmp_path, seconds):
    with stopped_holder(tmp_path / "file") as holder:
        began = time.monotonic()
        assert not file.lock_within(seconds)
        assert time.monotonic() - began >= seconds
        holder.resume()
        assert file.lock_within(seconds)


def test_a_lock_that_becomes_free_in_time_is_taken(file, tmp_path):
    with stopped_holder(tmp_path / "file") as holder, in_thread(holder.resume):
        assert file.lock_within(20)


def test_a_lock_by_name_whose_file_was_deleted_is_taken_on_the_new_file(tmp_path):
    (tmp_path / "file").touch(0o600)
    with closing(FileLock(tmp_path / "file")) as lock, stopped_holder(tmp_path / "file"):
        assert not lock.lock_within(0)
        (tmp_path / "file").unlink()
        assert lock.lock_within(0)


def test_a_thread_that_waits_for_another_thread_has_the_same_deadline(file, tmp_path):
    lock = TimedLock(file, tmp_path, timeout_seconds=0.05, noun="test")
    with lock, ThreadPoolExecutor(1) as pool, pytest.raises(LockTimeout):
        pool.submit(lock.acquire).result(20)
    lock.acquire()


def test_threads_that_get_the_lock_one_after_the_other_may_wait_for_longer(file, tmp_path):
    lock = TimedLock(file, tmp_path, timeout_seconds=0.1, noun="test")
    with ThreadPoolExecutor(8) as pool:
        for waiting in [pool.submit(hold, lock, 0.05) for _ in range(8)]:
            waiting.result(20)


def hold(lock, seconds):
    with lock:
        time.sleep(seconds)


# The shared state


@pytest.mark.parametrize("free", FREE)
def test_a_change_is_refused_at_the_deadline_and_made_once_the_lock_is_free(
    make, path, free, caplog, no_waiting
):
    caplog.set_level("INFO")
    store = make(lock_timeout=0.05).store
    with stopped_holder(path) as holder:
        with pytest.raises(StateLocked, match=rf"0\.05 s .LOCK_TIMEOUT.*{holder.pid} .stopped"):
            change(store)
        assert store.read().number == 0, "reading takes no lock"
        no_waiting()
        with pytest.raises(StateLocked, match=str(holder.pid)):
            change(store)
        getattr(holder, free)()
        change(store)
    assert store.read().number == 1
    assert events(caplog, "state_locked", "state_unlocked") == ["state_locked", "state_unlocked"]
    (record,) = (record for record in caplog.records if record.message == "state_locked")
    assert (record.holder, record.holder_state) == (holder.pid, "stopped")


def change(store):
    with store.transaction() as state:
        state.number += 1


def test_a_worker_without_requests_notices_that_the_state_is_locked_and_free_again(make, path):
    coordinator = make(lock_timeout=0.05).coordinator
    coordinator.check()
    assert coordinator.lock_problem == ""
    with stopped_holder(path) as holder:
        coordinator.check()
        assert f"process {holder.pid} (stopped)" in coordinator.lock_problem
        holder.resume()
        coordinator.check()
    assert coordinator.lock_problem == ""


def test_a_damaged_file_is_repaired_once_the_lock_is_free(make, path):
    one, other = make(lock_timeout=0.05), make(lock_timeout=0.05)
    change(one.store)
    assert other.store.read().number == 1
    os.truncate(path, 0)
    with stopped_holder(path):
        one.coordinator.check()
        with pytest.raises(StateLocked):
            change(other.store)
    change(one.store)
    assert other.store.read().number == 2


# Permits


@pytest.mark.parametrize("free", FREE)
def test_a_permit_that_cannot_be_given_back_is_given_back_once_the_lock_is_free(make, path, free):
    model = spec("a", max_concurrent=1)
    one, other = make(model, lock_timeout=0.05), make(model, lock_timeout=0.05)
    with given_back_while_locked(one, model, path) as holder:
        # The block of the permit has ended without an error, so the answer is not lost.
        with pytest.raises(StateLocked), other.scheduler.permit(model, client()):
            pass
        assert len(one.coordinator.read().permits) == 1, "the limit counts it"
        getattr(holder, free)()
        eventually(lambda: not one.coordinator.read().permits)
        with other.scheduler.permit(model, client()):
            assert len(one.coordinator.read().permits) == 1


@contextmanager
def given_back_while_locked(bench, model, path):
    """End a permit's block while a stopped process holds the lock, and yield the process."""
    with ExitStack() as stack:
        with bench.scheduler.permit(model, client()):
            holder = stack.enter_context(stopped_holder(path))
        yield holder


def test_the_next_transaction_gives_back_what_was_delayed(make, path):
    model = spec("a")
    bench = make(model, lock_timeout=0.05)
    with given_back_while_locked(bench, model, path) as holder:
        holder.resume()
        with bench.scheduler.permit(model, client()):
            assert len(bench.coordinator.read().permits) == 1


def test_a_permit_of_a_worker_that_ends_meanwhile_is_released_as_that_of_a_dead_worker(make, path):
    model = spec("a")
    one, other = make(model, lock_timeout=0.05), make(model)
    with given_back_while_locked(one, model, path):
        one.coordinator.close()
        one.coordinator.close = lambda: None  # `make` closes it too
        assert other.coordinator.read().owners() == {one.worker.id}


def test_a_model_that_was_loaded_meanwhile_is_not_believed_to_load_for_ever(make, path, runtime):
    model = spec("a")
    bench = make(model, lock_timeout=0.05)
    with ExitStack() as stack:
        runtime.load = lambda *args, **kwargs: stack.enter_context(stopped_holder(path))
        with pytest.raises(StateLocked), bench.scheduler.permit(model, client()):
            pass
        del runtime.load
    eventually(lambda: not bench.coordinator.read().tickets)
    with bench.scheduler.permit(model, client()):
        assert bench.coordinator.read().ready("a:latest")


# The leader


@pytest.fixture
def late_status(tmp_path):
    """A runtime status that the leader has not renewed for too long."""
    with closing(open_shared_file(tmp_path / "runtime_status.json", 1000)) as file:
        status = RuntimeStatusFile(file)
        status.write(RuntimeStatus(up=True, detail="", seen_at=time.monotonic() - 60))
        yield status
        status.close()


def test_a_leader_that_is_stopped_is_named_as_the_problem(late_status, tmp_path):
    assert late_status.problem == "the runtime has not answered recently"
    with stopped_holder(tmp_path / "runtime_status.json") as holder:
        assert f"process {holder.pid} (stopped); continue it" in late_status.problem
    late_status.write(RuntimeStatus(up=True, detail="", seen_at=time.monotonic()))
    assert late_status.problem == ""


def make_leader(bench, directory, runtime_status, rounds):
    return Leader(
        directory,
        coordinator=bench.coordinator,
        worker=bench.worker,
        reconciler=SimpleNamespace(run=lambda: rounds.append(1), is_busy=False),
        runtime_status=runtime_status,
        instance_lock=InstanceLock(directory, master=os.getpid(), address="nowhere"),
    )


def test_a_leader_that_is_stopped_is_logged_once_and_replaced_when_it_dies(
    late_status, make, tmp_path, caplog
):
    bench, rounds = make(), []
    leader = make_leader(bench, tmp_path, late_status, rounds)
    with stopped_holder(tmp_path / "runtime_status.json") as holder:
        leader.start()
        eventually(lambda: events(caplog, "leader_unresponsive"))
        holder.kill()
        eventually(lambda: rounds)
    leader.stop()
    (record,) = (each for each in caplog.records if each.message == "leader_unresponsive")
    assert (record.holder, record.holder_state) == (holder.pid, "stopped")


def test_a_leader_looks_after_the_runtime_while_the_state_is_locked(make, path, tmp_path, caplog):
    bench, rounds = make(lock_timeout=0.05), []
    with closing(open_shared_file(tmp_path / "runtime_status.json", 1000)) as file:
        leader = make_leader(bench, tmp_path, RuntimeStatusFile(file), rounds)
        (tmp_path / "workers" / "999999999-1-dead.wakeup").touch()
        with stopped_holder(path):
            leader.start()
            eventually(lambda: len(rounds) >= 2)
            assert events(caplog, "workers_died", "leader_failed") == []
        eventually(lambda: events(caplog, "workers_died"))
        leader.stop()


# The start


def test_a_start_is_refused_with_the_process_that_holds_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(timed_lock, "LOCK_SECONDS", 0.05)
    SharedResources.open(tmp_path, requests=1, models=1).close()
    with (
        stopped_holder(tmp_path / "registry.json") as holder,
        pytest.raises(LockTimeout, match=rf"process {holder.pid} \(stopped\)"),
    ):
        SharedResources.open(tmp_path, requests=1, models=1)
