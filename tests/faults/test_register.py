"""The catalogue of faults: nearly all cases are tested, and the named tests exist."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.faults.register import CASES, covering_tests
from tests.faults.table import FAULTS

TESTS = Path(__file__).parents[1]
CASE_COUNTS = {"U": 32, "P": 13, "D": 11, "T": 3, "S": 14, "I": 19, "A": 8}


def test_the_catalogue_is_complete():
    numbers = [f"{kind}{n}" for kind, count in CASE_COUNTS.items() for n in range(1, count + 1)]
    assert list(CASES) == numbers
    assert {fault.case for fault in FAULTS} <= CASES.keys()


def test_at_least_80_cases_are_tested_and_the_others_have_a_reason():
    tested = [number for number in CASES if covering_tests(number)]
    assert len(tested) >= 80
    assert all(bool(case.reason) != bool(covering_tests(number)) for number, case in CASES.items())


@pytest.mark.parametrize("number", [number for number in CASES if covering_tests(number)])
def test_the_tests_of_a_case_exist(number):
    for test in covering_tests(number):
        path, _, name = test.partition("::")
        assert name in functions(TESTS / path), test


def functions(path: Path) -> set[str]:
    module = ast.parse(path.read_text())
    return {each.name for each in module.body if isinstance(each, ast.FunctionDef)}
