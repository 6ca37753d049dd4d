"""The board: the shared state with the policy at work on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mes.scheduling import policy
from mes.scheduling.limits import Limits
from mes.scheduling.records import Ticket
from mes.scheduling.state import State
from mes.scheduling.store import Store
from mes.scheduling.worker import Worker


class Change:
    """One transaction under way: the state, the time, and what the policy has decided so far."""

    def __init__(self, state: State, limits: Limits) -> None:
        self.state = state
        self.limits = limits
        self.now = time.monotonic()
        self.to_wake: list[Ticket] = []
        self.settled = False

    def settle(self) -> None:
        """Let the policy have its say now, instead of when the change is complete.

        What is changed afterwards must give nobody anything to wait for or to gain.
        """
        self.settled = True
        decisions = policy.settle(self.state, self.now, self.limits)
        self.to_wake += [made.ticket for made in decisions if made.ticket is not None]


class Board:
    """Where every change of the shared state is made."""

    def __init__(self, store: Store, worker: Worker, limits: Callable[[], Limits]) -> None:
        self._store = store
        self._worker = worker
        self._limits = limits

    @contextmanager
    def change(self) -> Iterator[Change]:
        """A transaction that ends with the policy's decisions and wakes whom they concern.

        Left by an exception it changes nothing and wakes nobody.
        """
        with self._store.transaction() as state:
            change = Change(state, self._limits())
            yield change
            if not change.settled:
                change.settle()
        for ticket in change.to_wake:
            self._worker.ring(ticket.worker, ticket.id)

    @property
    def limits(self) -> Limits:
        """What the policy keeps to at present."""
        return self._limits()

    def close(self) -> None:
        """Leave nothing behind; nothing may be asked of this board afterwards."""
        with self.change() as change:
            change.state.bury(self._worker.id, change.now)
        self._worker.close()
        self._store.close()

    def check(self) -> None:
        """Repair the registry file if it is damaged. Raises OSError."""
        self._store.check()

    def save(self) -> None:
        """Keep the state for the service that starts after this one. Raises OSError."""
        self._store.save()

    def read(self) -> State:
        """The state as it last was, to report it."""
        return self._store.read()
