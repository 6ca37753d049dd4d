"""Checking and validation in a separate process, which may hang or die without ending the tests.

The process has a limit of CPU time for each case, so that a hang is detected and a busy machine is
not mistaken for one. A limit of wall-clock time catches a process that waits for ever.
"""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from mes import structured
from mes.errors import RequestInvalid, SchemaInvalid, SchemaUnsafe
from tests.structured.hostile import CASES
from tests.structured.hostile.case import JUDGED, Case

HANGS, DIES = "hangs", "dies"
FAST_MS = 50

# Of all tries of a case together: ten tries of the slowest case take 1 s.
_CPU_SECONDS = 5
_WALL_SECONDS = 60.0
# The times are the lowest of several tries. Beside other processes even CPU times vary, because
# caches are shared, so a case that seems slow is tried more often.
_TRIES, _TRIES_IF_SLOW = 3, 10
_WIDE_LIMITS = structured.SchemaLimits(subschemas=100_000, depth=1_000, text_bytes=1 << 24)
_FORK = get_context("fork")


@dataclass(frozen=True)
class CaseResult:
    """The result of a case; the times are the lowest CPU times of several tries."""

    outcome: str
    pointer: str = ""
    verdict: str | None = None
    modes: tuple[str, ...] = ()
    grammar_is_harmful: bool = False
    check_ms: float = 0.0
    validation_ms: float = 0.0
    errors: int = 0
    longest_detail: int = 0


class GuardedProcess:
    """A process that runs cases by name. It is replaced when it hangs or dies."""

    def __init__(
        self,
        run: Callable[[str], CaseResult] | None = None,
        *,
        cpu_seconds: int = _CPU_SECONDS,
        wall_seconds: float = _WALL_SECONDS,
    ) -> None:
        self._run = run or _run_by_name
        self._cpu_seconds = cpu_seconds
        self._wall_seconds = wall_seconds
        self._start()

    def _start(self) -> None:
        self._connection, child_end = _FORK.Pipe()
        arguments = (child_end, self._run, self._cpu_seconds)
        self._process = _FORK.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        child_end.close()

    def result(self, name: str) -> CaseResult:
        """Return the result of the case; the outcome is HANGS or DIES if the process has none."""
        self._connection.send(name)
        try:
            if self._connection.poll(self._wall_seconds):
                result: CaseResult = self._connection.recv()
                return result
            failure = CaseResult(HANGS)
        except (EOFError, ConnectionResetError):
            self._process.join()
            is_over_limit = self._process.exitcode == -signal.SIGXCPU
            failure = CaseResult(HANGS if is_over_limit else DIES)
        self.close()
        self._start()
        return failure

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()


def _serve(connection: Connection, run: Callable[[str], CaseResult], cpu_seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _run(Case({"type": "object"}, (JUDGED,)))  # imports and caches are warm before the first case
    while True:
        name = connection.recv()
        _limit_cpu_time(cpu_seconds)
        connection.send(run(name))


def _limit_cpu_time(seconds: int) -> None:
    """Let the kernel end this process with SIGXCPU after so many more seconds of CPU time."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_CPU)
    soft_limit = int(time.process_time()) + 1 + seconds  # whole seconds, rounded up
    resource.setrlimit(resource.RLIMIT_CPU, (soft_limit, hard_limit))


def _run_by_name(name: str) -> CaseResult:
    return _run(CASES[name])


def _run(case: Case) -> CaseResult:
    try:
        tries = [_try(case, number) for number in range(_TRIES)]
        while max(_lowest_times(tries).values()) >= FAST_MS and len(tries) < _TRIES_IF_SLOW:
            tries.append(_try(case, len(tries)))
    except BaseException as exc:  # a panic of an extension is not an Exception
        return CaseResult(f"{type(exc).__name__}: {exc}"[:200])
    return CaseResult(**{**tries[0], **_lowest_times(tries)})


def _lowest_times(tries: list[dict[str, Any]]) -> dict[str, float]:
    return {name: min(each[name] for each in tries) for name in ("check_ms", "validation_ms")}


def _try(case: Case, number: int) -> dict[str, Any]:
    # Each try has another title, because schemas that passed are cached.
    document = {**case.schema, "title": f"try {number}"} if number else case.schema
    began = time.process_time()
    try:
        schema = structured.check_schema(document)
    except (SchemaInvalid, SchemaUnsafe) as exc:
        return {**_rejection(exc), "check_ms": _ms_since(began), "validation_ms": 0.0}
    grammar = schema.grammar
    check_ms = _ms_since(began)
    began = time.process_time()
    validation = schema.validate_answer(case.answer, "stop")
    return {
        "outcome": JUDGED,
        "verdict": validation.verdict,
        "modes": schema.modes,
        "grammar_is_harmful": _is_harmful(grammar.document),
        "check_ms": check_ms,
        "validation_ms": _ms_since(began),
        "errors": len(validation.errors),
        "longest_detail": max((len(error.detail) for error in validation.errors), default=0),
    }


def _is_harmful(document: Mapping[str, Any]) -> bool:
    """Return whether something has to be left out of a document that is sent as a grammar."""
    again = structured.check_schema(document, _WIDE_LIMITS).grammar
    return again.document != document or "grammar" not in again.report.modes


def _rejection(exc: RequestInvalid) -> dict[str, Any]:
    return {"outcome": exc.code, "pointer": exc.mistakes[0].pointer}


def _ms_since(began: float) -> float:
    return (time.process_time() - began) * 1000
