"""The services that views use, put together by mes/app.py and found in the application."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from flask import current_app, request

from mes.attempts import Attempts
from mes.catalog import CatalogFile
from mes.domain import Runtime
from mes.errors import QueueFull
from mes.keys import Keys
from mes.metrics.exposition import Metrics
from mes.relay import Relay
from mes.scheduling.coordinator import Coordinator
from mes.scheduling.keeper import Keeper
from mes.scheduling.runtime_status import RuntimeStatusFile
from mes.scheduling.scheduler import Scheduler
from mes.scheduling.shared_resources import SharedResources
from mes.settings import Settings
from mes.structured import Limits
from mes.watch import SocketCaller, Watch, watched_caller


@dataclass(frozen=True)
class Services:
    """What a view may need."""

    settings: Settings
    keys: Keys
    attempts: Attempts
    catalog: CatalogFile
    schema_limits: Limits
    runtime: Runtime
    scheduler: Scheduler
    coordinator: Coordinator
    runtime_status: RuntimeStatusFile
    watch: Watch
    relay: Relay
    keeper: Keeper
    metrics: Metrics
    shared: SharedResources
    seats: threading.BoundedSemaphore

    @contextmanager
    def caller(self) -> Iterator[SocketCaller]:
        """The caller of the present request, with a thread to wait in.

        A worker keeps some threads back, so that health, status and models answer whatever else
        goes on. Normally the queues are full long before the seats are taken.
        """
        if not self.seats.acquire(blocking=False):
            raise QueueFull("all threads of this worker wait for models; try again later")
        try:
            with watched_caller(self.watch, request.environ.get("gunicorn.socket")) as caller:
                yield caller
        finally:
            self.seats.release()

    def retire(self) -> None:
        """Take on no more chores; another worker takes the place of this one."""
        self.keeper.retire()

    def shut_down(self) -> None:
        """Tell who waits that the service ends; what runs may go on for GRACEFUL_TIMEOUT."""
        self.scheduler.shut()
        self.watch.at(time.monotonic() + self.settings.graceful_timeout_seconds, self.runtime.shut)

    def close(self) -> None:
        """End the threads that serve this process, and leave the other workers."""
        self.keeper.stop()
        self.coordinator.close()
        self.watch.close()
        self.relay.close()
        self.runtime_status.close()
        self.metrics.observed.close()
        self.shared.close()


def services() -> Services:
    """The services of the present application."""
    return cast(Services, current_app.extensions["mes"])
