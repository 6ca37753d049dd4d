"""Cards: each model is asked for once, and again when it is another one."""

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


class Asked(FakeRuntime):
    """Counts for which models it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()
        self.error: Exception | None = None

    def card(self, name: str) -> ModelCard:
        self.asked[name] += 1
        if self.error is not None:
            raise self.error
        return super().card(name)


@pytest.fixture
def runtime() -> Asked:
    return Asked()


@pytest.fixture
def cards(runtime) -> CapabilityCache:
    return CapabilityCache(runtime)


def test_a_model_is_complete_once_it_was_asked_for(cards):
    assert cards.complete(MODEL, None) == MODEL
    cards.fetch([MODEL])
    assert cards.complete(MODEL, None) == KNOWN


def test_what_the_keeper_before_has_learnt_counts(cards, runtime):
    assert cards.complete(MODEL, KNOWN) == KNOWN
    assert not runtime.asked


def test_another_model_under_the_same_name_has_to_be_asked_for(cards):
    cards.fetch([MODEL])
    other = replace(MODEL, digest="sha256:" + "1" * 64)
    assert cards.complete(other, KNOWN).capabilities is None


@pytest.mark.parametrize("error", [ModelNotPulled("gone"), RuntimeReplyInvalid("nonsense")])
def test_a_card_that_cannot_be_had_says_nothing_and_is_not_asked_for_again(cards, runtime, error):
    runtime.error = error
    cards.fetch([MODEL])
    assert cards.complete(MODEL, None).capabilities == ()


def test_a_runtime_that_is_away_is_asked_again(cards, runtime):
    runtime.error = RuntimeUnavailable("away")
    with pytest.raises(RuntimeUnavailable):
        cards.fetch([MODEL])
    assert cards.complete(MODEL, None).capabilities is None
