"""keep_alive is read as Ollama reads it."""

import pytest

from mes.embedded import keep_alive
from mes.embedded.errors import BadRequest


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        (0, 0.0),
        (1.5, 1.5),
        (-1, keep_alive.FOREVER),
        ("0", 0.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("300ms", 0.3),
        ("1.5s", 1.5),
        ("-1s", keep_alive.FOREVER),
    ],
)
def test_numbers_are_seconds_and_strings_have_units(value, seconds):
    assert keep_alive.parse(value) == seconds


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
        keep_alive.parse(value)
    assert str(caught.value) == words


@pytest.mark.parametrize(("text", "seconds"), [("90", 90.0), ("5m", 300.0), ("-1", float("inf"))])
def test_the_setting_takes_a_bare_number_too(text, seconds):
    assert keep_alive.parse_setting(text) == seconds
