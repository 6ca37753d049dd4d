"""The catalogue of faults: nearly all of it is tested, and by tests that exist."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.faults.register import CASES, kept_by
from tests.faults.table import FAULTS

TESTS = Path(__file__).parents[1]
HOW_MANY = {"U": 32, "P": 13, "D": 11, "T": 3, "S": 14, "I": 19, "A": 8}


def test_the_catalogue_is_whole():
    numbers = [f"{kind}{n}" for kind, most in HOW_MANY.items() for n in range(1, most + 1)]
    assert list(CASES) == numbers
    assert {fault.case for fault in FAULTS} <= CASES.keys()


def test_at_least_80_cases_are_tested_and_of_the_others_it_is_told_why():
    tested = [number for number in CASES if kept_by(number)]
    assert len(tested) >= 80
    assert all(bool(case.because) != bool(kept_by(number)) for number, case in CASES.items())


@pytest.mark.parametrize("number", [number for number in CASES if kept_by(number)])
def test_the_tests_of_a_case_exist(number):
    for test in kept_by(number):
        path, _, name = test.partition("::")
        assert name in functions(TESTS / path), test


def functions(path: Path) -> set[str]:
    module = ast.parse(path.read_text())
    return {each.name for each in module.body if isinstance(each, ast.FunctionDef)}
