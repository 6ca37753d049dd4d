"""keep_alive is read as Ollama reads it."""

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
    ("value", "words"),
    [
        ("10", 'time: missing unit in duration "10"'),
        ("-1", 'time: missing unit in duration "-1"'),
        ("abc", 'time: invalid duration "abc"'),
        ("", 'time: invalid duration ""'),
        (True, "Unsupported type: 'bool'"),
    ],
)
def test_a_wrong_value_is_refused_in_ollamas_words(value, words):
    with pytest.raises(BadRequest) as caught:
        durations.parse_keep_alive(value)
    assert str(caught.value) == words


@pytest.mark.parametrize(("text", "seconds"), [("90", 90.0), ("5m", 300.0), ("-1", float("inf"))])
def test_the_setting_takes_a_bare_number_too(text, seconds):
    assert durations.parse_setting(text) == seconds
