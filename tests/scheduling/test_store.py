"""The store: one state for all threads and processes, and for the start after this one."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from contextlib import ExitStack, closing

import orjson
import pytest

from mes.errors import StateDirFull
from mes.event_loop import EventLoop
from mes.scheduling import store as module
from mes.scheduling.registry import (
    DELETED,
    LOAD,
    MISSING,
    PERMIT,
    READY,
    FoundPlaces,
    LoadFailure,
    StuckRunner,
)
from mes.scheduling.serialization import check, decode, encode, image
from mes.scheduling.shared_resources import SharedResources, open_shared_file
from mes.scheduling.state import State
from mes.scheduling.store import Snapshot, Store
from mes.scheduling.workers import WorkerProcess
from tests.fakes import eventually

NOW = time.monotonic()


@pytest.fixture
def worker_id(tmp_path):
    event_loop = EventLoop()
    worker = WorkerProcess(tmp_path, event_loop)
    yield worker.id
    worker.close()
    event_loop.close()


@pytest.fixture
def state(worker_id):
    """Return a state with two models in memory and a third loading, all in use or waited for."""
    state = State(3)
    for model in ("a", "b"):
        state.adopt(model, NOW, size_bytes=7)
    for worker in (worker_id, "999999999-1-dead"):
        state.grant(state.join(f"{worker}/1", worker, "a", PERMIT, NOW), NOW)
        state.join(f"{worker}/2", worker, "a", PERMIT, NOW)
    state.begin_load(state.join(f"{worker_id}/3", worker_id, "c", LOAD, NOW), NOW)
    state.load_failures["d"] = LoadFailure(2, NOW + 100, "out of memory")
    state.statistics_of("a").load_seconds = 1.5
    state.preloaded["a"] = "7"
    state.found_places["runtime"] = FoundPlaces(1, 2, NOW, 1, 1, NOW + 600)
    state.stalled["e"] = True
    state.add_stuck(StuckRunner("e", "0123", DELETED, NOW, size_bytes=5), NOW)
    return state


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "registry.json"


@pytest.fixture
def start(path):
    """Start so many stores on the file, as processes do that open it by its name."""
    with ExitStack() as stack:

        def started(number=1):
            files = SharedResources.open(path.parent, requests=20, models=3)
            stack.callback(files.close)
            stores = [Store(files.registry, max_loaded=3) for _ in range(number)]
            for each in stores:
                stack.callback(each.close)
            return stores

        yield started


def begun_with(path, content, start):
    """Return the state that a start finds in a file with this document."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(image(content))
    return start()[0].read()


# One state for all


def test_a_change_is_seen_by_all_workers(start):
    one, other = start(2)
    with one.transaction() as state:
        state.adopt("a", 1.0)
    assert list(other.read().registry) == ["a"]
    with other.transaction() as state:
        state.adopt("b", 2.0)
    with one.transaction() as state:
        assert list(state.registry) == ["a", "b"]


def test_a_transaction_that_an_exception_leaves_changes_nothing(start):
    one, other = start(2)
    with pytest.raises(ZeroDivisionError), one.transaction() as state:
        state.adopt("a", 1 / 0)
    for each in (one, other):
        with each.transaction() as state:
            assert not state.registry


def test_a_transaction_that_changes_nothing_writes_nothing(start, path):
    (one,) = start()
    with one.transaction() as state:
        state.number += 1
    before = path.read_bytes()
    with one.transaction() as state:
        state.number += 0
    assert path.read_bytes() == before


def test_threads_of_one_process_exclude_each_other(start):
    (one,) = start()

    def count():
        for _ in range(200):
            with one.transaction() as state:
                number = state.number
                time.sleep(0)
                state.number = number + 1

    threads = [threading.Thread(target=count) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert one.read().number == 1000


def test_reading_waits_for_no_transaction(start):
    one, other = start(2)
    with one.transaction() as state:
        state.number = 7
        assert (one.read().number, other.read().number) == (0, 0)
    assert (one.read().number, other.read().number) == (7, 7)


def test_the_order_of_use_is_that_of_all_workers(start):
    one, other = start(2)
    with one.transaction() as state:
        for model in "abc":
            state.adopt(model, 1.0)
    with other.transaction() as state:
        state.grant(state.join("w/1", "w", "a", PERMIT, 2.0), 2.0)
    other.read().registry.peek("b")
    with one.transaction() as state:
        assert list(state.registry) == ["b", "c", "a"]
        assert state.registry.popitem()[0] == "b"


def test_a_person_sees_the_state_with_cat(start, path):
    (one,) = start()
    for model in "ab":
        with one.transaction() as state:
            state.adopt(model, 1.0)
    lines = map(json.loads, path.read_bytes().replace(b"\0", b"").splitlines())
    seen = max(lines, key=lambda line: line["sequence"])["content"]
    assert [resident["model"] for resident in seen["registry"]] == ["a", "b"]


def test_on_a_full_disk_a_larger_state_is_refused_and_other_changes_are_made(start, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    one, other = start(2)
    with one.transaction() as state:
        state.adopt("a", 1.0)
        state.grant(state.join("w/1", "w", "a", PERMIT, 1.0), 1.0)
    monkeypatch.setattr(os, "posix_fallocate", full)

    def join_many():
        with one.transaction() as state:
            for n in range(1000):
                state.join(f"w/{n + 2}", "w", "a", PERMIT, 1.0)

    with pytest.raises(StateDirFull, match=r"STATE_DIR .*No space left.*make room"):
        join_many()
    with other.transaction() as state:
        assert (len(state.permits), len(state.tickets)) == (1, 0)
        state.leave("w/1", 2.0)
    assert one.read().permits == {}


# Damage


@pytest.fixture
def patient(monkeypatch):
    # Longer than a thread of a busy machine waits for its turn.
    monkeypatch.setattr(module, "_AGREE_SECONDS", 2.0)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(module, "_AGREE_SECONDS", 0.2)


def repaired(caplog):
    return [record.message for record in caplog.records].count("state_dir_repaired")


HARM = {
    "truncated": lambda path: os.truncate(path, 0),
    "half of it": lambda path: os.truncate(path, path.stat().st_size // 2),
    "garbage": lambda path: path.write_bytes(b"\xff\x00" * 50_000),
    "one half": lambda path: path.write_bytes(b"x" * 300 + path.read_bytes()[300:]),
    "numbers": lambda path: path.write_bytes(path.read_bytes().replace(b"1", b"2")),
}


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.usefixtures("patient")
def test_of_a_damaged_file_the_newest_state_of_all_workers_counts(start, path, caplog, harm):
    behind, ahead, fresh = start(3)
    for number in (1, 2, 3):
        with behind.transaction() as state:
            state.number = number
    for number in (4, 5):
        with ahead.transaction() as state:
            state.number = number
    HARM[harm](path)
    seen = []

    def act(store):
        with store.transaction() as state:
            seen.append(state.number)
            state.number += 1

    acting = [threading.Thread(target=act, args=(store,)) for store in (behind, fresh)]
    for thread in acting:
        thread.start()
    # As every worker does. One check can meet the file while another worker enlarges it again.
    while any(thread.is_alive() for thread in acting):
        ahead.check()
        time.sleep(0.01)
    assert sorted(seen) == [5, 6]
    assert {store.read().number for store in (behind, ahead, fresh)} == {7}
    assert repaired(caplog) == 1
    behind.check()
    assert repaired(caplog) == 1


@pytest.mark.usefixtures("quick")
def test_damage_is_repaired_without_a_request(start, path, caplog):
    one, other = start(2)
    for number in (1, 2, 3):
        with one.transaction() as state:
            state.number = number
    path.write_bytes(b"nonsense")
    assert one.read().number == 3
    other.check()
    one.check()
    assert {store.read().number for store in (one, other)} <= {0, 3}
    assert repaired(caplog) == 1


# The next start


def test_the_next_start_goes_on_with_the_same_file(start, path, state):
    (one,) = start()
    with one.transaction() as now:
        now.adopt("a", 1.0)
    (later,) = start()
    with later.transaction() as now:
        assert list(now.registry) == ["a"]
        now.adopt("b", 2.0)
    assert list(one.read().registry) == ["a", "b"]


def test_a_file_of_an_earlier_start_is_used(start, path, state):
    begun = begun_with(path, encode(state), start)
    for resident in state.registry.residents():
        resident.phase = MISSING if resident.phase == READY else resident.phase
    assert encode(begun) == encode(state)


def set_in(document, where, value):
    *parents, last = where
    for parent in parents:
        document = document[parent]
    document[last] = value


WRONG = [
    (["number"], -1),
    (["number"], 2**60),
    (["number"], 1.5),
    (["number"], True),
    (["swap_began"], "soon"),
    (["permits"], []),
    (["permits", "x"], 7),
    (["permits", "x"], {"id": "x"}),
    (["registry", 0, "since"], -5),
    (["registry", 0, "since"], 1e300),
    (["registry", 0, "since"], None),
    (["registry", 0, "draining"], 1),
    (["registry", 0, "model"], ["a"]),
    (["registry", 0, "more"], 1),
    (["registry"], {"a": 1}),
    (["statistics", "a", "load_seconds"], "1"),
    (["statistics", "a", "loads"], -1),
    (["load_failures", "d", "until"], 1e12),
    (["preloaded", "a"], 7),
    (["stuck", "e@0123", "size_bytes"], -1),
    (["stuck"], []),
    (["aliases"], {"a": 7}),
    (["version"], 99),
    (["boot"], "another"),
]


@pytest.mark.parametrize(("where", "value"), WRONG)
def test_a_wrong_value_at_any_depth_makes_a_file_unusable(path, state, start, caplog, where, value):
    document = orjson.loads(encode(state))
    set_in(document, where, value)
    found = begun_with(path, orjson.dumps(document), start)
    assert encode(found) == encode(State(3))
    assert [record.message for record in caplog.records] == ["registry_unusable"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"7", b"\xff" * 99, b"[" * 100_000, b'{"number": NaN}', b"{}"],
)
def test_a_document_that_is_no_state_is_unusable(path, start, content):
    assert encode(begun_with(path, content, start)) == encode(State(3))


def test_half_a_document_is_unusable(path, state, start):
    content = encode(state)
    assert encode(begun_with(path, content[: len(content) // 2], start)) == encode(State(3))


@pytest.mark.parametrize("content", [b"{", b"\xff" * 9999, b'{"version":1,"boot":7}'])
def test_a_file_of_another_program_is_unusable(path, start, content):
    path.parent.mkdir()
    path.write_bytes(content)
    assert encode(start()[0].read()) == encode(State(3))


def test_a_smaller_number_of_models_keeps_those_used_last(state):
    assert list(decode(encode(state), 2).registry) == ["a", "c"]


def test_a_state_of_this_version_passes_the_check(state):
    check(encode(state))
    check(b"null")


def test_a_state_of_an_earlier_release_is_used(path, state, start):
    document = orjson.loads(encode(state))
    for name in ("stuck", "unload_failures", "aliases", "renewed_at", "found_places", "stalled"):
        del document[name]
    found = begun_with(path, orjson.dumps(document), start)
    assert (set(found.registry), found.stuck) == ({"a", "b", "c"}, {})


# The name


def test_nothing_is_saved_while_the_file_has_its_name(start, path):
    (one,) = start()
    before = os.stat(path)
    one.save()
    assert os.stat(path) == before
    assert sorted(each.name for each in path.parent.iterdir()) == [
        "registry.json",
        "runtime_status.json",
    ]


def test_of_a_file_without_its_name_a_copy_is_there_for_the_next_start(start, path, caplog):
    (one,) = start()
    path.unlink()
    for model in "ab":
        with one.transaction() as state:
            state.adopt(model, 1.0)
        one.save()
    assert repaired(caplog) == 1
    (later,) = start()
    assert list(later.read().registry) == ["a", "b"]
    assert not list(path.parent.glob("*.new"))


def test_the_copy_is_written_when_the_state_has_changed_or_a_person_has_changed_the_copy(
    start, path
):
    (one,) = start()
    path.unlink()
    one.save()
    before = os.stat(path).st_ino
    one.save()
    assert os.stat(path).st_ino == before
    path.write_bytes(b"damaged")
    one.save()
    assert list(start()[0].read().registry) == []
    with one.transaction() as state:
        state.adopt("a", 1.0)
    one.save()
    assert list(start()[0].read().registry) == ["a"]


def test_a_directory_that_cannot_be_written_is_named_though_nothing_need_be_saved(
    start, path, monkeypatch
):
    (one,) = start()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        one.save()


def test_the_state_is_saved_also_where_no_directory_is_left(tmp_path):
    (tmp_path / "gone").mkdir()
    path = tmp_path / "gone" / "registry.json"
    with closing(open_shared_file(path, 10)) as file, closing(Snapshot(file)) as snapshot:
        path.unlink()
        path.parent.rmdir()
        snapshot.save()
    eventually(path.exists)
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_start_knows_of_no_model_that_it_is_in_memory(start, path):
    (store,) = start()
    with store.transaction() as state:
        state.adopt("a", now=1.0, digest="sha256:1")
    (restarted,) = start()
    assert restarted.read().missing("a")
    with restarted.transaction() as state:
        state.look_for("a", listed=True, now=2.0)
    assert restarted.read().ready("a")
