"""A finding: what a check has seen, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True)
class Finding:
    """`fail`: something cannot work, or settings contradict each other; `warn`: worth a look."""

    level: str
    subject: str
    text: str


Findings = Iterator[Finding]


def ok(subject: str, text: str) -> Finding:
    return Finding(OK, subject, text)


def warn(subject: str, text: str) -> Finding:
    return Finding(WARN, subject, text)


def fail(subject: str, text: str) -> Finding:
    return Finding(FAIL, subject, text)


def or_else(found: list[Finding], good: Finding) -> Findings:
    """What was found, or that all is well."""
    yield from found or [good]
