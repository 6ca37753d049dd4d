"""Model names are parsed as in Ollama."""

import pytest

from mes.embedded import model_store
from mes.embedded.api_errors import BadRequest


@pytest.mark.parametrize(
    "spelling",
    [
        "SmolLM2:135M",
        "library/smollm2:135m",
        "registry.ollama.ai/library/smollm2:135m",
        " smollm2:135m ",
    ],
)
def test_all_spellings_of_a_name_are_the_same_model(spelling):
    assert model_store.parse_name(spelling).key == "smollm2:135m"


def test_a_name_without_a_tag_means_latest():
    assert str(model_store.parse_name("tiny")) == "tiny:latest"


def test_a_port_is_no_tag():
    assert str(model_store.parse_name("localhost.5000/me/tiny")) == "localhost.5000/me/tiny:latest"
    assert model_store.parse_name("me/tiny:v1").tag == "v1"


def test_the_full_name_has_registry_and_library():
    assert model_store.parse_name("tiny").full == "registry.ollama.ai/library/tiny:latest"
    assert model_store.parse_name("me/tiny").full == "registry.ollama.ai/me/tiny:latest"


@pytest.mark.parametrize("text", ["bad name!", "tiny:", "/tiny", "a@b", "../../etc/passwd", "", 7])
def test_an_invalid_name_is_refused(text):
    with pytest.raises(BadRequest, match="invalid model name"):
        model_store.parse_name(text)
