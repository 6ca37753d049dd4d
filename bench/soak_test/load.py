"""The load of a soak test: clients that send requests, and the outcome of each request."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench.soak_test.environment import DEADLINE_SECONDS
from bench.soak_test.request_mix import PlannedRequest, draw
from tests.integration.helpers import LOST, Answer, Call
from tests.support.service import Service

HUNG_UP = -1
NEVER = -2
_WORDS = {LOST: "connection lost", HUNG_UP: "hung up", NEVER: "no answer"}
# Added to the deadline for busy machines.
_ALLOWANCE_SECONDS = 15.0
# The pause after an error; the Retry-After of the response would leave little load.
_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """The outcome of one request. Times are of `time.monotonic()`."""

    kind: str
    route: str
    model: str
    status: int
    code: str
    port: int
    sent_at: float
    ended_at: float
    error: str

    @property
    def seconds(self) -> float:
        return self.ended_at - self.sent_at

    @property
    def outcome(self) -> str:
        """Return the outcome as text for a table."""
        return _WORDS.get(self.status) or f"{self.status} {self.code}".strip()


@dataclass
class LoadGenerator:
    """Clients that have one request open each, until they are stopped."""

    service: Service
    seed: int
    outcomes: list[RequestOutcome] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self, clients: int) -> Iterator[None]:
        """Run this number of clients during the block; afterwards all have their answers."""
        threads = [threading.Thread(target=self._run_client, args=(n,)) for n in range(clients)]
        self._stop.clear()
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        if self.failures:
            raise self.failures[0]

    def _run_client(self, number: int) -> None:
        rng = random.Random(f"{self.seed}/{number}")
        try:
            while not self._stop.is_set():
                outcome = send_request(self.service, draw(rng))
                self.outcomes.append(outcome)
                if outcome.status >= 500:
                    self._stop.wait(_PAUSE_SECONDS)
        except BaseException as exc:
            self.failures.append(exc)


def send_request(service: Service, planned: PlannedRequest) -> RequestOutcome:
    """Send one request, wait for its answer or hang up, and return the outcome."""
    sent_at, port = time.monotonic(), 0
    try:
        with Call(service, planned.path, planned.body) as call:
            port = call.sock.getsockname()[1]
            if planned.hangs_up_after_seconds is not None:
                time.sleep(planned.hangs_up_after_seconds)
                return _outcome(planned, HUNG_UP, port, sent_at)
            return _checked_outcome(
                planned, call.answer(DEADLINE_SECONDS + _ALLOWANCE_SECONDS), port, sent_at
            )
    except ConnectionError:
        return _outcome(planned, LOST, port, sent_at)
    except AssertionError:  # raised by the helper when the answer does not arrive
        return _outcome(planned, NEVER, port, sent_at)


def _checked_outcome(
    planned: PlannedRequest, answer: Answer, port: int, sent_at: float
) -> RequestOutcome:
    if answer.status == LOST:
        return _outcome(planned, LOST, port, sent_at)
    error = planned.find_error(answer)
    return _outcome(planned, answer.status, port, sent_at, answer.code or "", error)


def _outcome(
    planned: PlannedRequest, status: int, port: int, sent_at: float, code: str = "", error: str = ""
) -> RequestOutcome:
    request = (planned.kind, planned.path, planned.model)
    return RequestOutcome(*request, status, code, port, sent_at, time.monotonic(), error)
