"""`keep_alive` is parsed as in Ollama."""

import pytest

from mes.embedded import durations
from mes.embedded.api_errors import BadRequest


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        (0, 0.0),
        (1.5, 1.5),
        (-1, durations.FOREVER),
        ("0", 0.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("300ms", 0.3),
        ("1.5s", 1.5),
        ("-1s", durations.FOREVER),
    ],
)
def test_numbers_are_seconds_and_strings_have_units(value, seconds):
    assert durations.parse_keep_alive(value) == seconds


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("10", 'time: missing unit in duration "10"'),
        ("-1", 'time: missing unit in duration "-1"'),
        ("abc", 'time: invalid duration "abc"'),
        ("", 'time: invalid duration ""'),
        (True, "Unsupported type: 'bool'"),
    ],
)
def test_an_invalid_value_is_refused_with_ollamas_message(value, message):
    with pytest.raises(BadRequest) as caught:
        durations.parse_keep_alive(value)
    assert str(caught.value) == message


@pytest.mark.parametrize(("text", "seconds"), [("90", 90.0), ("5m", 300.0), ("-1", float("inf"))])
def test_the_setting_also_accepts_a_number_without_unit(text, seconds):
    assert durations.parse_setting(text) == seconds
