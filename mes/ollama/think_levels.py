"""Levels of thinking that models have refused."""

from __future__ import annotations

import time

from mes.domain import Prompt

_REFUSAL_SECONDS = 600


class RefusedThinkLevels:
    """The levels of thinking that each model has refused in the last ten minutes."""

    def __init__(self) -> None:
        self._refused_at: dict[tuple[str, bool | str], float] = {}

    def add(self, prompt: Prompt) -> None:
        self._refused_at[prompt.spec.tag, prompt.think] = time.monotonic()

    def has(self, prompt: Prompt) -> bool:
        refused_at = self._refused_at.get((prompt.spec.tag, prompt.think))
        return refused_at is not None and time.monotonic() < refused_at + _REFUSAL_SECONDS
