"""Findings: the results of the checks that `mes check` runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True)
class Finding:
    """One line of `mes check`.

    Attributes:
        level: `ok`; `warn` for a possible problem; `fail` if something cannot work, or if settings
            contradict each other.
        subject: the part of the system that was checked, such as `limits`.
        text: the problem, the number or setting involved, and the remedy.
    """

    level: str
    subject: str
    text: str


Findings = Iterator[Finding]


def ok(subject: str, text: str) -> Finding:
    """Return a finding of level `ok`."""
    return Finding(OK, subject, text)


def warn(subject: str, text: str) -> Finding:
    """Return a finding of level `warn`."""
    return Finding(WARN, subject, text)


def fail(subject: str, text: str) -> Finding:
    """Return a finding of level `fail`."""
    return Finding(FAIL, subject, text)


def or_else(problems: list[Finding], default: Finding) -> Findings:
    """Yield the problems, or `default` if there are none."""
    yield from problems or [default]
