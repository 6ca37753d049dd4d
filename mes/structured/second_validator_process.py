"""The process of the second validator: reads a schema and instances, writes a verdict for each.

A program of its own, run as a file: it imports nothing of MES, so it is ready after 0.12 s of CPU
time. Standard input is one line of JSON with the schema and the limits, then a line for each
instance. Standard output is a line for each instance, written as soon as it is judged, so that the
verdicts so far survive the end of the process.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

Verdict = dict[str, Any]

# Libraries that take 1 s of CPU time to import, and the formats that need them.
_SLOW_FORMATS = {"rfc3987_syntax": '"iri'}
_NICENESS = 5
# Enough for values and schemas as deep as MES takes; a deeper one is undecided.
_MOST_FRAMES = 5_000
# For the import of slow formats, before the first instance.
_START_SECONDS = 5


class _OutOfTime(BaseException):
    """Raised by the timer in the middle of a judgement; no `except Exception` may catch it."""


def main() -> None:
    """Judge the instances of standard input."""
    header = sys.stdin.buffer.readline().decode()
    task = json.loads(header)
    _limit(task)
    _leave_out_slow_formats(header)
    verdicts = validate_instances(
        validator_of(task["schema"]), map(json.loads, sys.stdin.buffer), task
    )
    for verdict in verdicts:
        print(json.dumps(verdict), flush=True)


def validator_of(schema: Mapping[str, Any]) -> Any:
    """Return the validator of the schema's own dialect: it asserts formats and fetches nothing."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for
    from referencing import Registry

    kind = validator_for(schema, default=Draft202012Validator)
    return kind(schema, format_checker=kind.FORMAT_CHECKER, registry=Registry())


def validate_instances(
    validator: Any, instances: Iterable[Any], limits: Mapping[str, Any]
) -> Iterator[Verdict]:
    """Yield a verdict for each instance.

    Args:
        limits: `instance_seconds` and `cpu_seconds`, CPU time for one instance and for all of
            them; `errors`, how many are listed, each with `characters`.
    """
    signal.signal(signal.SIGPROF, _interrupt)
    end = time.process_time() + limits["cpu_seconds"]
    for instance in instances:
        if time.process_time() > end:
            yield _undecided(f"not reached within {limits['cpu_seconds']:g} s of CPU time")
        else:
            yield _verdict(validator, instance, limits)


def _verdict(validator: Any, instance: Any, limits: Mapping[str, Any]) -> Verdict:
    try:
        try:
            # The regular expressions of Python look for signals while they match.
            signal.setitimer(signal.ITIMER_PROF, limits["instance_seconds"])
            errors = islice(validator.iter_errors(instance), limits["errors"])
            listed = [_error(each, limits["characters"]) for each in errors]
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except _OutOfTime:
        return _undecided(f"takes longer than {limits['instance_seconds']:g} s of CPU time")
    except Exception as exc:
        # An error of the library says nothing about the instance.
        kind = f"{type(exc).__module__}.{type(exc).__name__}"
        return _undecided(f"jsonschema raised {kind}: {exc}"[: limits["characters"]])
    return {"verdict": "invalid" if listed else "valid", "errors": listed}


def _undecided(reason: str) -> Verdict:
    return {"verdict": "undecided", "reason": reason}


def _error(error: Any, characters: int) -> dict[str, Any]:
    value, message = repr(error.instance), str(error.message)
    if message.startswith(value):
        message = f"the value{message[len(value) :]}"
    return {
        "path": list(error.absolute_path),
        "keyword": error.validator or "false",
        "detail": message[:characters],
    }


def _interrupt(*_: Any) -> None:
    raise _OutOfTime


def _limit(task: Mapping[str, Any]) -> None:
    # The kernel ends the process at the limit, in any state, and also if MES was killed. Set
    # here, because code between fork and exec is not safe in a process with threads.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, task["wall_seconds"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    seconds = task["cpu_seconds"] + task["instance_seconds"] + _START_SECONDS
    _lower(resource.RLIMIT_CPU, int(seconds))
    _lower(resource.RLIMIT_AS, task["memory_bytes"])
    _lower(resource.RLIMIT_CORE, 0)
    sys.setrecursionlimit(_MOST_FRAMES)
    os.nice(_NICENESS)


def _lower(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


def _leave_out_slow_formats(header: str) -> None:
    for library, formats in _SLOW_FORMATS.items():
        if formats not in header:
            # Its import fails, and jsonschema goes on without the formats.
            sys.modules[library] = None  # type: ignore[assignment]


if __name__ == "__main__":
    main()
