"""Errors: how numbers are written in their details."""

from __future__ import annotations

import pytest

from mes.errors import format_number


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (2**31 - 1, "2147483647"),
        (-(2**63), "-9223372036854775808"),
        (1_000_000.0, "1000000"),
        (30.0, "30"),
        (0.5, "0.5"),
        (-2, "-2"),
        (1234567.25, "1234567.25"),
        (0.00001, "0.00001"),
        (float("inf"), "Infinity"),
    ],
)
def test_a_number_is_written_out(number, text):
    assert format_number(number) == text
