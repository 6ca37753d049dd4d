"""Screening and judging in a process of its own, which may hang or die without ending the tests."""

from __future__ import annotations

import time
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from mes import structured
from mes.errors import RequestInvalid, SchemaInvalid, SchemaUnsafe
from tests.structured.hostile import CASES
from tests.structured.hostile.case import JUDGED, Case

_PATIENCE_SECONDS = 5.0
# The best of several tries, because the machine that runs the tests does other things as well.
_TRIES = 3
_FORK = get_context("fork")


@dataclass(frozen=True)
class Experience:
    """What came of a case; times are of the processor, the best of several tries."""

    outcome: str
    pointer: str = ""
    verdict: str | None = None
    modes: tuple[str, ...] = ()
    screening_ms: float = 0.0
    judging_ms: float = 0.0
    errors: int = 0
    longest_detail: int = 0


class Guarded:
    """One process that goes through cases by name; a new one takes over where it hangs or dies."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._connection, its_end = _FORK.Pipe()
        self._process = _FORK.Process(target=_serve, args=(its_end,), daemon=True)
        self._process.start()
        its_end.close()

    def experience(self, name: str) -> Experience:
        """What comes of the case; the outcome is "hangs" or "dies" where nothing does."""
        self._connection.send(name)
        try:
            if self._connection.poll(_PATIENCE_SECONDS):
                found: Experience = self._connection.recv()
                return found
            ending = Experience("hangs")
        except EOFError:
            ending = Experience("dies")
        self.close()
        self._start()
        return ending

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()


def _serve(connection: Connection) -> None:
    _experience(Case({"type": "object"}, (JUDGED,)))  # what is imported late is imported now
    while True:
        connection.send(_experience(CASES[connection.recv()]))


def _experience(case: Case) -> Experience:
    try:
        tries = [_try(case, number) for number in range(_TRIES)]
    except BaseException as exc:  # such as a panic of an extension, which is no Exception
        return Experience(f"{type(exc).__name__}: {exc}"[:200])
    best_screening = min(each["screening_ms"] for each in tries)
    best_judging = min(each["judging_ms"] for each in tries)
    return Experience(
        **{**tries[0], "screening_ms": best_screening, "judging_ms": best_judging},
    )


def _try(case: Case, number: int) -> dict[str, Any]:
    # Another title each time: what has been screened before is remembered.
    document = {**case.schema, "title": f"try {number}"} if number else case.schema
    began = time.process_time()
    try:
        schema = structured.check_schema(document)
    except (SchemaInvalid, SchemaUnsafe) as exc:
        return {**_refusal(exc), "screening_ms": _ms_since(began), "judging_ms": 0.0}
    screening_ms = _ms_since(began)
    began = time.process_time()
    validation = schema.validate_answer(case.answer, "stop")
    return {
        "outcome": JUDGED,
        "verdict": validation.verdict,
        "modes": getattr(schema, "modes", ("grammar",)),
        "screening_ms": screening_ms,
        "judging_ms": _ms_since(began),
        "errors": len(validation.errors),
        "longest_detail": max((len(error.detail) for error in validation.errors), default=0),
    }


def _refusal(exc: RequestInvalid) -> dict[str, Any]:
    return {"outcome": exc.code, "pointer": exc.mistakes[0].pointer}


def _ms_since(began: float) -> float:
    return (time.process_time() - began) * 1000
