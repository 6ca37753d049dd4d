"""The copy: what a later service finds of an earlier one, and what it does not believe."""

from __future__ import annotations

import os
import time

import orjson
import pytest

from mes.event_loop import EventLoop
from mes.scheduling.copy import Copy
from mes.scheduling.document import encode
from mes.scheduling.records import LOAD, PERMIT, Trouble
from mes.scheduling.state import State
from mes.scheduling.worker import Worker

NOW = time.monotonic()


@pytest.fixture
def living(tmp_path):
    event_loop = EventLoop()
    worker = Worker(tmp_path, event_loop)
    yield worker.id
    worker.close()
    event_loop.close()


@pytest.fixture
def state(living):
    """Two models in memory and a third on its way; somebody uses each, and somebody waits."""
    state = State(3)
    for model in ("a", "b"):
        state.adopt(model, NOW, size_bytes=7)
    for worker in (living, "999999999-1-dead"):
        state.grant(state.join(f"{worker}/1", worker, "a", PERMIT, NOW), NOW)
        state.join(f"{worker}/2", worker, "a", PERMIT, NOW)
    state.begin_load(state.join(f"{living}/3", living, "c", LOAD, NOW), NOW)
    state.troubles["d"] = Trouble(2, NOW + 100, "out of memory")
    state.tally("a").load_seconds = 1.5
    state.preloaded["a"] = "7"
    return state


def recalled(tmp_path, content):
    (tmp_path / "registry.json").write_bytes(content)
    return Copy(tmp_path).recall(3)


def test_what_is_in_memory_and_how_long_things_take_is_kept(tmp_path, state):
    found = recalled(tmp_path, encode(state))
    assert [found.registry[model] for model in found.registry] == [
        state.registry[model] for model in ("b", "a")
    ]
    assert (found.troubles, found.tallies) == (state.troubles, state.tallies)
    assert found.preloaded == state.preloaded


def test_of_permits_those_are_kept_whose_worker_lives(tmp_path, state, living):
    found = recalled(tmp_path, encode(state))
    assert [permit.worker for permit in found.permits.values()] == [living]
    assert not found.tickets
    assert not found.leaving


def set_in(document, path, value):
    *parents, last = path
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
    (["tallies", "a", "load_seconds"], "1"),
    (["tallies", "a", "loads"], -1),
    (["troubles", "d", "until"], 1e12),
    (["preloaded", "a"], 7),
    (["version"], 99),
    (["boot"], "another"),
]


@pytest.mark.parametrize(("path", "value"), WRONG)
def test_a_wrong_value_however_deep_makes_it_worthless(tmp_path, state, path, value):
    document = orjson.loads(encode(state))
    set_in(document, path, value)
    assert encode(recalled(tmp_path, orjson.dumps(document))) == encode(State(3))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"7", b"null", b"\xff" * 99, b"[" * 100_000, b'{"number": NaN}', b"{}"],
)
def test_what_is_no_document_is_worthless(tmp_path, content):
    assert encode(recalled(tmp_path, content)) == encode(State(3))


def test_half_a_document_is_worthless(tmp_path, state):
    content = encode(state)
    assert encode(recalled(tmp_path, content[: len(content) // 2])) == encode(State(3))


def test_a_resident_in_a_phase_that_does_not_exist_takes_up_no_place(tmp_path, state):
    document = orjson.loads(encode(state))
    document["registry"][0]["phase"] = "dancing"
    assert list(recalled(tmp_path, orjson.dumps(document)).registry) == ["a"]


def test_it_is_written_when_the_state_has_changed_and_when_somebody_has_changed_it(tmp_path):
    copy, path = Copy(tmp_path), tmp_path / "registry.json"
    copy.save(1, b"one")
    before = os.stat(path).st_ino
    copy.save(1, b"one")
    assert os.stat(path).st_ino == before
    path.write_bytes(b"damaged")
    copy.save(1, b"one")
    assert path.read_bytes() == b"one"
    path.unlink()
    copy.save(1, b"one")
    copy.save(2, b"two")
    assert path.read_bytes() == b"two"
    assert [each.name for each in tmp_path.glob("registry*")] == ["registry.json"]
