"""Background operations: threads for work that may take long, each name once at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from mes.errors import MesError

log = logging.getLogger(__name__)


class AlwaysConnected:
    """A `domain.Client` that never disconnects: MES itself."""

    disconnected = False

    def on_disconnect(self, callback: Callable[[], None]) -> AbstractContextManager[None]:
        return nullcontext()


class BackgroundOperations:
    """Runs operations in threads; a failure is logged."""

    def __init__(self) -> None:
        self._threads: dict[str, threading.Thread] = {}

    @property
    def any_running(self) -> bool:
        return any(thread.is_alive() for thread in self._threads.values())

    def is_running(self, name: str) -> bool:
        thread = self._threads.get(name)
        return thread is not None and thread.is_alive()

    def run(self, name: str, operation: Callable[[], None]) -> None:
        """Run the operation in a thread, unless one of that name still runs."""
        if self.is_running(name):
            return
        self._threads[name] = threading.Thread(
            target=_run_logged, args=(name, operation), daemon=True
        )
        self._threads[name].start()


def _run_logged(name: str, operation: Callable[[], None]) -> None:
    try:
        operation()
    except MesError as exc:
        log.warning(
            "reconcile_failed", extra={"operation": name, "code": exc.code, "reason": exc.detail}
        )
