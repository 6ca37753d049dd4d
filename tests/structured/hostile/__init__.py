"""Hostile schemas by name, with the outcomes that are right for each."""

from __future__ import annotations

from tests.structured.hostile import (
    answers,
    branches,
    curious,
    invalid,
    patterns,
    unformattable,
    unsafe,
)
from tests.structured.hostile.case import Case

CASES: dict[str, Case] = {
    f"{module.__name__.rpartition('.')[2]}-{name}": case
    for module in (invalid, unsafe, patterns, branches, unformattable, curious, answers)
    for name, case in module.CASES.items()
}
