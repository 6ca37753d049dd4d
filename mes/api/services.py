"""The services that views use. mes/app.py puts them together."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from flask import current_app, request

from mes.config.api_keys import ApiKeys, KeyThrottle
from mes.config.catalog import CatalogFile
from mes.config.settings import Settings
from mes.domain import Runtime
from mes.errors import QueueFull
from mes.event_loop import EventLoop, SocketClient, watch_client
from mes.metrics.collector import MetricsCollector
from mes.scheduling.answer_versions import AnswerVersions
from mes.scheduling.coordinator import Coordinator
from mes.scheduling.deletion import ModelDeleter
from mes.scheduling.leader import Leader
from mes.scheduling.runtime_status import RuntimeStatus, RuntimeStatusFile
from mes.scheduling.scheduler import Scheduler
from mes.scheduling.shared_resources import SharedResources
from mes.streams import StreamPump
from mes.structured import SchemaLimits, SecondValidator


@dataclass(frozen=True)
class Services:
    """All services of the application."""

    settings: Settings
    keys: ApiKeys
    key_throttle: KeyThrottle
    catalog: CatalogFile
    schema_limits: SchemaLimits
    second_validator: SecondValidator
    runtime: Runtime
    scheduler: Scheduler
    model_deleter: ModelDeleter
    coordinator: Coordinator
    runtime_status: RuntimeStatusFile
    versions: AnswerVersions
    event_loop: EventLoop
    stream_pump: StreamPump
    leader: Leader
    metrics: MetricsCollector
    shared: SharedResources
    wait_slots: threading.BoundedSemaphore

    @contextmanager
    def client(self) -> Iterator[SocketClient]:
        """Return the client of the present request, and reserve a thread to wait in.

        Each worker keeps some threads free, so that health, status and models respond while all
        others wait. Normally the queues are full before the wait slots are taken.

        Raises QueueFull if no wait slot is free.
        """
        if not self.wait_slots.acquire(blocking=False):
            raise QueueFull("all threads of this worker wait for models; try again later")
        try:
            with watch_client(self.event_loop, request.environ.get("gunicorn.socket")) as client:
                yield client
        finally:
            self.wait_slots.release()

    def known_runtime_status(self) -> RuntimeStatus:
        """Return the status of the runtime, with its version if the runtime answers."""
        return self.runtime_status.current_or_asked(self.runtime)

    def retire(self) -> None:
        """Take on no more background work; another worker takes the place of this one."""
        self.leader.retire()

    def shut_down(self) -> None:
        """Refuse waiting requests; running ones may go on for `GRACEFUL_TIMEOUT`."""
        self.scheduler.shut()
        self.event_loop.call_at(
            time.monotonic() + self.settings.graceful_timeout_seconds, self.runtime.shut_down
        )

    def close(self) -> None:
        """End the background threads of this process and release its shared files."""
        self.leader.stop()
        self.coordinator.close()
        self.event_loop.close()
        self.stream_pump.close()
        self.runtime_status.close()
        self.metrics.request_counters.close()
        self.shared.close()


def get_services() -> Services:
    """Return the services of the present application."""
    return cast(Services, current_app.extensions["mes"])
