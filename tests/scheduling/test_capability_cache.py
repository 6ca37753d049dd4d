"""The capability cache: the runtime is asked once for each version of a model."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from mes.domain import ModelCard, PulledModel
from mes.errors import ModelNotPulled, RuntimeReplyInvalid, RuntimeUnavailable
from mes.scheduling.runtime_status import CapabilityCache
from tests.fakes import ALL_BUT_EMBEDDING, DIGEST, FakeRuntime

MODEL = PulledModel("a:latest", DIGEST, 10, "Q4_0", "1B")
KNOWN = replace(MODEL, capabilities=ALL_BUT_EMBEDDING)


class CountingRuntime(FakeRuntime):
    """Counts the requests for the capabilities of each model."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: Counter[str] = Counter()
        self.error: Exception | None = None

    def card(self, name: str) -> ModelCard:
        self.requests[name] += 1
        if self.error is not None:
            raise self.error
        return super().card(name)


@pytest.fixture
def runtime() -> CountingRuntime:
    return CountingRuntime()


@pytest.fixture
def cache(runtime) -> CapabilityCache:
    return CapabilityCache(runtime)


def test_a_model_is_complete_once_its_capabilities_are_fetched(cache):
    assert cache.complete(MODEL, None) == MODEL
    cache.fetch([MODEL])
    assert cache.complete(MODEL, None) == KNOWN


def test_capabilities_that_an_earlier_leader_has_fetched_are_used(cache, runtime):
    assert cache.complete(MODEL, KNOWN) == KNOWN
    assert not runtime.requests


def test_the_capabilities_of_a_new_version_of_a_model_are_unknown(cache):
    cache.fetch([MODEL])
    other = replace(MODEL, digest="sha256:" + "1" * 64)
    assert cache.complete(other, KNOWN).capabilities is None


@pytest.mark.parametrize("error", [ModelNotPulled("gone"), RuntimeReplyInvalid("nonsense")])
def test_a_model_without_a_card_has_no_capabilities(cache, runtime, error):
    runtime.error = error
    cache.fetch([MODEL])
    assert cache.complete(MODEL, None).capabilities == ()


def test_capabilities_stay_unknown_if_the_runtime_is_unavailable(cache, runtime):
    runtime.error = RuntimeUnavailable("away")
    with pytest.raises(RuntimeUnavailable):
        cache.fetch([MODEL])
    assert cache.complete(MODEL, None).capabilities is None


def test_a_model_that_makes_no_text_has_one_slot_unless_the_runtime_reports_more(cache, runtime):
    runtime.embedders = {MODEL.name}
    cache.fetch([MODEL])
    assert cache.complete(MODEL, None).slots == 1
    assert cache.complete(replace(MODEL, slots=4), None).slots == 4


def test_the_slots_of_a_model_that_generates_are_unknown(cache):
    cache.fetch([MODEL])
    assert cache.complete(MODEL, None).slots is None
