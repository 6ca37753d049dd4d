"""The clients of a soak: a crowd that asks again and again, and what became of each request."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench.soaking.stage import DEADLINE_SECONDS
from bench.soaking.wishes import Wish, draw
from tests.integration.helpers import LOST, Answer, Call
from tests.support.service import Service

HUNG_UP = -1
NEVER = -2
_WORDS = {LOST: "connection lost", HUNG_UP: "hung up", NEVER: "no answer"}
# Beyond the deadline, for machines that have much else to do.
_ALLOWANCE_SECONDS = 15.0
# Whoever is told to come back later does; the true Retry-After would leave little load.
_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of one request. Times are of `time.monotonic()`."""

    kind: str
    route: str
    model: str
    status: int
    code: str
    port: int
    sent_at: float
    ended_at: float
    wrong: str

    @property
    def seconds(self) -> float:
        return self.ended_at - self.sent_at

    @property
    def outcome(self) -> str:
        """In words, for a table."""
        return _WORDS.get(self.status) or f"{self.status} {self.code}".strip()


@dataclass
class Crowd:
    """Clients that each have one request open at a time, until they are told to stop."""

    service: Service
    seed: int
    seen: list[Seen] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def at_work(self, clients: int) -> Iterator[None]:
        """So many clients for the length of the block; afterwards all have their answers."""
        threads = [threading.Thread(target=self._live, args=(n,)) for n in range(clients)]
        self._over.clear()
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()
        if self.failures:
            raise self.failures[0]

    def _live(self, number: int) -> None:
        dice = random.Random(f"{self.seed}/{number}")
        try:
            while not self._over.is_set():
                seen = ask(self.service, draw(dice))
                self.seen.append(seen)
                if seen.status >= 500:
                    self._over.wait(_PAUSE_SECONDS)
        except BaseException as exc:
            self.failures.append(exc)


def ask(service: Service, wish: Wish) -> Seen:
    """Send one request and wait for what becomes of it."""
    sent_at, port = time.monotonic(), 0
    try:
        with Call(service, wish.path, wish.body) as call:
            port = call.sock.getsockname()[1]
            if wish.hangs_up_after is not None:
                time.sleep(wish.hangs_up_after)
                return _seen(wish, HUNG_UP, port, sent_at)
            return _judged(wish, call.answer(DEADLINE_SECONDS + _ALLOWANCE_SECONDS), port, sent_at)
    except ConnectionError:
        return _seen(wish, LOST, port, sent_at)
    except AssertionError:  # the helper's word for an answer that has not come
        return _seen(wish, NEVER, port, sent_at)


def _judged(wish: Wish, answer: Answer, port: int, sent_at: float) -> Seen:
    if answer.status == LOST:
        return _seen(wish, LOST, port, sent_at)
    wrong = wish.wrong_with(answer)
    return _seen(wish, answer.status, port, sent_at, answer.code or "", wrong)


def _seen(
    wish: Wish, status: int, port: int, sent_at: float, code: str = "", wrong: str = ""
) -> Seen:
    where = (wish.kind, wish.path, wish.model)
    return Seen(*where, status, code, port, sent_at, time.monotonic(), wrong)
