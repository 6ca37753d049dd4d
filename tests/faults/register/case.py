"""One case of the catalogue."""

from __future__ import annotations

from dataclasses import dataclass

EACH = "faults/test_each.py::test_a_fault_is_reported_and_leaves_nothing_behind"
RANDOM_ORDER = "faults/test_random_order.py::test_faults_in_random_order_leave_nothing_behind"


@dataclass(frozen=True)
class Case:
    """A fault with its tests, or the reason that it has none."""

    description: str
    tests: tuple[str, ...] = ()
    reason: str = ""


def case(description: str, *tests: str, reason: str = "") -> Case:
    return Case(description, tests, reason)
