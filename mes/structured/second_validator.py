"""The second validator: Python's `jsonschema`, whose verdicts are compared with those of MES.

It shares no code with the validator that MES judges answers by, so a difference between the two
points to a mistake in one of them, or to a schema that can be read in two ways.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from mes.domain import Client, Violation
from mes.domain.json_pointer import json_pointer
from mes.errors import ClientDisconnected, QueueFull, format_number
from mes.structured.backtracking import Undecided
from mes.structured.cost import CostExceeded
from mes.structured.messages import shorten
from mes.structured.schema import Schema
from mes.structured.validation import TOO_LARGE, Validator

log = logging.getLogger(__name__)

MOST_ERRORS = 5
VALID, INVALID, UNDECIDED = "valid", "invalid", "undecided"

# CPU time. MES takes 1 ms for an expensive instance of a real-world schema, and 50 ms at most.
_MES_SECONDS = 5.0

# A new process, and not a fork: a fork of a process with threads copies locks that a thread of the
# parent holds, and no thread of the child will ever release them.
_PROGRAM = (sys.executable, "-P", str(Path(__file__).with_name("second_validator_process.py")))


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict of one validator on one instance: valid, invalid or undecided, and why."""

    verdict: str
    errors: tuple[Violation, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The verdicts of both validators on one instance."""

    mes: Verdict
    jsonschema: Verdict

    @property
    def agree(self) -> bool | None:
        """Whether the verdicts are the same; None where one of them is undecided."""
        verdicts = {self.mes.verdict, self.jsonschema.verdict}
        return None if UNDECIDED in verdicts else len(verdicts) == 1


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """The limits of one process of the second validator.

    CPU time decides which instances are undecided, so that a busy machine does not; the wall-clock
    time bounds how long a request may wait. Of 599 instances of 150 real-world schemas, none takes
    more than 5 ms, so 1,000 of the most expensive take half of `cpu_seconds`.
    """

    instance_seconds: float = 1.0
    cpu_seconds: float = 10.0
    wall_seconds: float = 30.0
    memory_bytes: int = 1 << 30
    errors: int = MOST_ERRORS
    characters: int = 200


class SecondValidator:
    """Runs `jsonschema` in processes that end at their limits, few at a time.

    Args:
        processes: how many run at a time; of each worker.
        waiting: how many requests more wait for one of them.
    """

    def __init__(
        self,
        limits: ProcessLimits | None = None,
        *,
        program: Sequence[str] = _PROGRAM,
        processes: int = 2,
        waiting: int = 6,
    ) -> None:
        self._limits = limits or ProcessLimits()
        self._program = program
        self._running = threading.BoundedSemaphore(processes)
        self._admitted = threading.BoundedSemaphore(processes + waiting)

    def validate_instances(
        self, schema: Schema, texts: Sequence[str], client: Client
    ) -> list[Verdict]:
        """Return a verdict for each instance, given as JSON text.

        Raises:
            QueueFull: too many processes run already.
            CallerGone: the client has hung up; the process has been killed.
        """
        with self._slot():
            lines, missing = self._run([self._header(schema), *texts], client)
        verdicts = [_verdict(json.loads(line)) for line in lines]
        return verdicts + [Verdict(UNDECIDED, reason=missing)] * (len(texts) - len(verdicts))

    def _header(self, schema: Schema) -> str:
        return json.dumps({"schema": schema.document, **asdict(self._limits)})

    @contextmanager
    def _slot(self) -> Iterator[None]:
        busy = QueueFull("too many requests of this worker use the second validator; try again")
        if not self._admitted.acquire(blocking=False):
            raise busy
        try:
            if not self._running.acquire(timeout=self._limits.wall_seconds):
                raise busy
            try:
                yield
            finally:
                self._running.release()
        finally:
            self._admitted.release()

    def _run(self, lines: Sequence[str], client: Client) -> tuple[list[bytes], str]:
        """Return the lines that the process wrote, and why there are no more."""
        process = subprocess.Popen(
            self._program,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        with process:
            try:
                with client.on_disconnect(process.kill):
                    output, in_time = self._communicate(process, "\n".join(lines).encode())
            finally:
                process.kill()
        if client.disconnected:
            raise ClientDisconnected("the caller has hung up")
        # The last line is empty, or was cut off.
        return output.split(b"\n")[:-1], self._missing(process.returncode, in_time=in_time)

    def _communicate(self, process: subprocess.Popen[bytes], text: bytes) -> tuple[bytes, bool]:
        """Return the output, and whether the process ended before its limit."""
        try:
            return process.communicate(text, timeout=self._limits.wall_seconds)[0], True
        except subprocess.TimeoutExpired:
            process.kill()
            return process.communicate()[0], False

    def _missing(self, exit_code: int, *, in_time: bool) -> str:
        """Return why instances have no verdict."""
        if not in_time or exit_code == -signal.SIGALRM:
            return f"not reached within {format_number(self._limits.wall_seconds)} s"
        if exit_code:
            log.warning("second_validator_failed", extra={"exit_code": exit_code})
        return f"the process of the second validator ended with status {exit_code}"


def compare(
    schema: Schema, instances: Sequence[Any], *, second: SecondValidator, client: Client
) -> list[Comparison]:
    """Return the verdicts of both validators on each instance.

    Raises:
        QueueFull: too many processes of the second validator run already.
        CallerGone: the client has hung up.
    """
    texts = [json.dumps(each) for each in instances]
    theirs = second.validate_instances(schema, texts, client)
    return list(map(Comparison, _verdicts_of_mes(schema.validator, instances, texts), theirs))


@cache
def versions() -> dict[str, str]:
    """Return the libraries that judge, by the names of their verdicts in a Comparison."""
    libraries = {"mes": "jsonschema-rs", "jsonschema": "jsonschema"}
    return {name: f"{each} {metadata.version(each)}" for name, each in libraries.items()}


def _environment() -> dict[str, str]:
    """Return the variables that Python needs, and not the keys that MES has in its environment."""
    needed = ("PATH", "LD_LIBRARY_PATH")
    return {
        name: value
        for name, value in os.environ.items()
        if name in needed or name.startswith("PYTHON")
    }


def _verdicts_of_mes(
    validator: Validator, instances: Sequence[Any], texts: Sequence[str]
) -> Iterator[Verdict]:
    end = time.thread_time() + _MES_SECONDS
    for instance, text in zip(instances, texts, strict=True):
        if time.thread_time() > end:
            reason = f"not reached within {format_number(_MES_SECONDS)} s of CPU time"
            yield Verdict(UNDECIDED, reason=reason)
        else:
            yield _verdict_of_mes(validator, instance, text)


def _verdict_of_mes(validator: Validator, instance: Any, text: str) -> Verdict:
    try:
        validation = validator.validate_value(instance, characters=len(text))
    except CostExceeded:
        return Verdict(UNDECIDED, reason=TOO_LARGE)
    except Undecided as exc:
        return Verdict(UNDECIDED, reason=str(exc))
    verdict = VALID if validation.valid else INVALID
    return Verdict(verdict, validation.errors[:MOST_ERRORS])


def _verdict(document: dict[str, Any]) -> Verdict:
    errors = [
        Violation(shorten(json_pointer(each["path"])), each["keyword"], shorten(each["detail"]))
        for each in document.get("errors", ())
    ]
    return Verdict(document["verdict"], tuple(errors), document.get("reason"))
