"""The places of the fake machine: how Ollama makes room for a model that is to be loaded.

One loop loads models, one after the other in order of arrival. If all places are taken, it marks
one model, idle ones first, to leave when it is idle, and waits until it has left, also for a client
that has gone. A request with `keep_alive` takes the mark back, and the loop waits on.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

from tests.support.fake_ollama.model import Model


class Places:
    """The queue of loads, and the model that was marked for the first of them."""

    def __init__(self) -> None:
        self._pending: deque[object] = deque()
        self._marked: Model | None = None

    def join(self) -> object:
        """Return a new position at the end of the queue."""
        self._pending.append(position := object())
        return position

    def leave(self, position: object) -> None:
        """Leave the queue, unless that has been done."""
        if position in self._pending:
            self._pending.remove(position)

    def is_turn(self, position: object) -> bool:
        return self._pending[0] is position

    def has_room(
        self, places: int, others: Sequence[Model], unload_if_idle: Callable[[Model], None]
    ) -> bool:
        """Return whether one more model may be loaded; if not, begin to make room.

        Args:
            places: how many models may be in memory; 0 for any number.
            others: the other models in memory.
            unload_if_idle: unloads a marked model that is idle.
        """
        if not places or len(others) < places:
            self._marked = None
            return True
        if self._marked not in others:
            self._marked = min(others, key=_order_of_leaving)
            self._marked.keep_alive_seconds = 0.0
            self._marked.counters.evictions += 1
            unload_if_idle(self._marked)
        return False


def _order_of_leaving(model: Model) -> tuple[bool, float, str]:
    kept = model.keep_alive_seconds
    return bool(model.clients), math.inf if kept < 0 else kept, model.name
