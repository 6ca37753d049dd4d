"""The coordinator: transactions on the shared state, each ended by the policy's decisions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from mes.errors import StateUnavailable
from mes.scheduling import policy
from mes.scheduling.background_retry import BackgroundRetry
from mes.scheduling.fairness import Limits
from mes.scheduling.registry import Ticket
from mes.scheduling.state import State
from mes.scheduling.store import Store
from mes.scheduling.workers import WorkerProcess


class Transaction:
    """One change of the state under way: the state, the time, and the tickets to wake after it."""

    def __init__(self, state: State, limits: Limits) -> None:
        self.state = state
        self.limits = limits
        self.now = time.monotonic()
        self.to_wake: list[Ticket] = []
        self.settled = False

    def settle(self) -> None:
        """Let the policy decide now, instead of when the transaction is complete.

        Changes after that must not concern a ticket that waits.
        """
        self.settled = True
        decisions = policy.settle(self.state, self.now, self.limits)
        self.to_wake += [each.ticket for each in decisions if each.ticket is not None]


class Coordinator:
    """Makes every change of the shared state.

    Args:
        store: The state that all workers share.
        worker: This worker, which wakes tickets.
        limits: Returns the limits of the policy, which change with the catalog.
    """

    def __init__(self, store: Store, worker: WorkerProcess, limits: Callable[[], Limits]) -> None:
        self._store = store
        self._worker = worker
        self._limits = limits
        # Tickets and permits that are given up, until a transaction has removed them.
        self._leaving: set[str] = set()
        self._retry = BackgroundRetry("mes-leave", self._leave_all)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Yield a transaction that ends with the policy's decisions and wakes their tickets.

        Left by an exception it changes nothing and wakes no ticket.

        Raises:
            StateUnavailable: the state cannot be changed now.
        """
        with self._store.transaction() as state:
            transaction = Transaction(state, self._limits())
            leaving = self._leaving.copy()
            for ticket in leaving:
                state.leave(ticket, transaction.now)
            yield transaction
            if not transaction.settled:
                transaction.settle()
        self._leaving -= leaving
        for woken in transaction.to_wake:
            self._worker.wake(woken.worker, woken.id)

    def leave(self, ticket: str) -> None:
        """Give up a permit, a place in the queue or a refusal, now or as soon as possible.

        If the state cannot be changed now, the next transaction of this worker does it.
        """
        self._leaving.add(ticket)
        if not self._leave_all():
            self._retry.begin()

    @property
    def limits(self) -> Limits:
        """The limits of the policy at present."""
        return self._limits()

    def close(self) -> None:
        """Remove all of this worker from the state. The coordinator is of no use afterwards."""
        self._retry.stop()
        # If that cannot be done now, the leader does it once this process has ended.
        with suppress(StateUnavailable), self.transaction() as transaction:
            transaction.state.release_dead_worker(self._worker.id, transaction.now)
        self._worker.close()
        self._store.close()

    @property
    def lock_problem(self) -> str:
        """Why the state cannot be changed now, or an empty string."""
        return self._store.lock_problem

    def check(self) -> None:
        """Repair the registry file if it is damaged, and try its lock. Raises OSError."""
        self._store.check()

    def save(self) -> None:
        """Keep the state for the next start of the service. Raises OSError."""
        self._store.save()

    def read(self) -> State:
        """Return the state as it last was, to report it."""
        return self._store.read()

    def _leave_all(self) -> bool:
        try:
            with self.transaction():
                return True
        except StateUnavailable:
            return False
