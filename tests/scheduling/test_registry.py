"""The registry: the order of use of the models, and the choice of the victim."""

from __future__ import annotations

import pytest

from mes.scheduling import policy
from mes.scheduling.fairness import Limits
from mes.scheduling.policy import Evict
from mes.scheduling.registry import PERMIT, READY, Registry, Resident
from mes.scheduling.serialization import decode, encode
from mes.scheduling.state import State
from tests.fakes import spec


def registry(*models: str, busy: str = "", wanted: str = "") -> Registry:
    """Return a registry of idle models, loaded in this order."""
    made = Registry(len(models), lambda model: model not in busy, lambda: set(wanted))
    for model in models:
        made[model] = Resident(model, READY, 0.0)
    return made


def test_the_order_is_that_of_the_last_use():
    made = registry("a", "b", "c")
    assert made["a"].model == "a"
    assert list(made) == ["b", "c", "a"]
    assert made.pop("c").model == "c"
    assert list(made) == ["b", "a"]


@pytest.mark.parametrize(
    "read",
    [
        lambda made: made.peek("a"),
        list,
        len,
        lambda made: "a" in made,
        Registry.residents,
        Registry.evictable,
        Registry.victim,
    ],
    ids=["peek", "iterate", "len", "in", "residents", "evictable", "victim"],
)
def test_reading_the_registry_does_not_change_the_order(read):
    made = registry("a", "b", "c")
    read(made)
    assert list(made) == ["a", "b", "c"]


def test_the_model_used_longest_ago_is_popped_first():
    made = registry("a", "b", "c")
    _ = made["a"], made["b"]
    assert [made.popitem()[0] for _ in range(3)] == ["c", "a", "b"]


def test_models_that_cannot_be_evicted_are_skipped_and_keep_their_order():
    made = registry("a", "b", "c", "d", busy="ab")
    assert made.popitem()[0] == "c"
    assert list(made) == ["a", "b", "d"]


def test_a_model_that_no_request_waits_for_is_evicted_first():
    assert registry("a", "b", "c", wanted="ab").popitem()[0] == "c"
    assert registry("a", "b", wanted="ab").popitem()[0] == "a"


def test_nothing_is_popped_if_no_model_can_be_evicted():
    made = registry("a", "b", busy="ab")
    with pytest.raises(KeyError, match="busy, loading or pinned"):
        made.popitem()
    with pytest.raises(KeyError, match="busy, loading or pinned"):
        made["c"] = Resident("c", READY, 0.0)
    assert list(made) == ["a", "b"]


@pytest.fixture
def state() -> State:
    """Three models in memory, adopted in the order a, b, c."""
    state = State(3)
    for model in "abc":
        state.adopt(model, 0.0)
    return state


def test_a_permit_is_a_use_when_it_is_granted_and_when_it_is_given_back(state):
    state.grant(state.join("w/1", "w", "a", PERMIT, 1.0), 1.0)
    assert list(state.registry) == ["b", "c", "a"]
    state.grant(state.join("w/2", "w", "b", PERMIT, 2.0), 2.0)
    state.leave("w/1", 3.0)
    assert list(state.registry) == ["c", "b", "a"]
    assert [state.registry.peek(model).used_at for model in state.registry] == [0.0, 2.0, 3.0]


def test_changes_without_a_request_do_not_change_the_order(state):
    state.correct("a", size_bytes=7)
    state.look_for("a", listed=True, now=5.0)
    state.finish_load("a", 5.0)
    assert state.resident("a") is not None
    assert list(state.registry) == ["a", "b", "c"]


def test_the_order_is_that_of_all_workers(state):
    state.grant(state.join("w/1", "w", "a", PERMIT, 1.0), 1.0)
    elsewhere = decode(encode(state), 3)
    assert list(elsewhere.registry) == ["b", "c", "a"]
    elsewhere.leave("w/1", 2.0)
    elsewhere.grant(elsewhere.join("v/1", "v", "b", PERMIT, 2.0), 2.0)
    assert list(decode(encode(elsewhere), 3).registry) == ["c", "a", "b"]


def test_the_decision_names_the_model_that_the_cache_pops(state):
    limits = Limits(3, 5.0, models={model: spec(model) for model in "abcd"})
    state.grant(state.join("w/1", "w", "a", PERMIT, 1.0), 1.0)
    state.leave("w/1", 1.0)
    ticket = state.join("w/2", "w", "d", PERMIT, 2.0)
    decision = policy.decide(state, 2.0, limits)
    assert decision == Evict(ticket, "b")
    assert list(state.registry) == ["b", "c", "a"], "deciding changes nothing"
    decision.apply(state, 2.0)
    assert list(state.registry) == ["c", "a"]
    assert state.unloading == {"b": "w/2"}
