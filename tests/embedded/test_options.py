"""Options reach the engine complete and by its names."""

import pytest

from mes.embedded import options
from mes.embedded.options import BadOption
from mes.embedded.runtime_settings import EmbeddedSettingsError, load_settings


def test_the_engine_gets_ollamas_defaults():
    sampling = options.parse_options(None).sampling
    assert (sampling["top_p"], sampling["min_p"], sampling["temperature"]) == (0.9, 0.0, 0.8)
    assert sampling["n_predict"] == -1


def test_options_of_the_request_replace_the_defaults():
    sampling = options.parse_options({"temperature": 0, "num_predict": 7.9, "stop": ["x"]}).sampling
    assert (sampling["temperature"], sampling["n_predict"], sampling["stop"]) == (0, 7, ["x"])


def test_null_and_unknown_options_change_nothing():
    assert options.parse_options({"top_k": None, "mirostat": 2}) == options.parse_options({})


def test_parameters_of_the_load_are_separate():
    parsed = options.parse_options({"num_ctx": 512, "num_thread": 2, "num_batch": 32})
    assert (parsed.context_length, parsed.threads, parsed.batch) == (512, 2, 32)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"num_predict": "many"}, 'option "num_predict" must be of type integer'),
        ({"num_ctx": "big"}, 'option "num_ctx" must be of type integer'),
        ({"temperature": "hot"}, 'option "temperature" must be of type float32'),
        ({"use_mmap": 1}, 'option "use_mmap" must be of type boolean'),
        ({"stop": "x"}, 'option "stop" must be of type array'),
        ({"stop": [1]}, 'option "stop" must be of an array of strings'),
    ],
)
def test_a_wrong_type_is_refused_with_ollamas_message(value, message):
    with pytest.raises(BadOption) as caught:
        options.parse_options(value)
    assert (str(caught.value), caught.value.status) == (message, 500)


@pytest.mark.parametrize(("text", "is_on"), [("", False), ("false", False), ("1", True)])
def test_the_prompt_cache_is_off_unless_it_is_turned_on(text, is_on):
    assert load_settings({"EMBEDDED_PROMPT_CACHE": text}).prompt_cache is is_on


def test_a_switch_is_true_or_false():
    with pytest.raises(EmbeddedSettingsError, match="EMBEDDED_PROMPT_CACHE=maybe: must be true or"):
        load_settings({"EMBEDDED_PROMPT_CACHE": "maybe"})


@pytest.mark.parametrize("text", ["0", "-1", "0s"])
def test_unread_answers_cannot_wait_forever(text):
    with pytest.raises(EmbeddedSettingsError, match=f"EMBEDDED_WRITE_TIMEOUT={text}: must be a"):
        load_settings({"EMBEDDED_WRITE_TIMEOUT": text})
