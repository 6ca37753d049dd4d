"""One case of the catalogue."""

from __future__ import annotations

from dataclasses import dataclass

EACH = "faults/test_each.py::test_a_fault_is_told_and_leaves_nothing_behind"
AGAIN_AND_AGAIN = "faults/test_again_and_again.py::test_faults_in_random_order_leave_nothing_behind"


@dataclass(frozen=True)
class Case:
    """What goes wrong; what keeps the promise, or why nothing does."""

    what: str
    kept_by: tuple[str, ...] = ()
    because: str = ""


def case(what: str, *kept_by: str, because: str = "") -> Case:
    return Case(what, kept_by, because)
