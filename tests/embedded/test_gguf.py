"""The header of a GGUF file describes the model."""

import pytest

from mes.embedded.gguf import NotGGUF, read_header

from .files import gguf

CHATML = "{% for m in messages %}{{ m['role'] }}{% endfor %}"
DEFAULT_SYSTEM_MESSAGE = (
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}{% endif %}"
)


def test_the_header_has_architecture_context_and_size(tmp_path):
    header = read_header(gguf(tmp_path / "a.gguf", **{"general.file_type": 15}))
    assert (header.architecture, header.context_length) == ("llama", 128)
    assert (header.parameter_count, header.quantization) == (88, "Q4_K_M")


def test_a_long_vocabulary_is_skipped_and_later_keys_are_read(tmp_path):
    words = [f"word{number}" for number in range(500)]
    metadata = {"tokenizer.ggml.tokens": words, "general.languages": ["en"], "after": "here"}
    header = read_header(gguf(tmp_path / "a.gguf", **metadata))
    assert header.metadata["tokenizer.ggml.tokens"] is None
    assert (header.metadata["general.languages"], header.metadata["after"]) == (["en"], "here")


def test_a_model_with_pooling_is_an_embedding_model(tmp_path):
    plain = read_header(gguf(tmp_path / "a.gguf"))
    pooled = read_header(gguf(tmp_path / "b.gguf", **{"llama.pooling_type": 1}))
    assert not plain.is_embedding
    assert pooled.is_embedding


@pytest.mark.parametrize("size", [0, 3, 20, 60, -1])
def test_a_truncated_file_is_no_gguf(tmp_path, size):
    path = gguf(tmp_path / "a.gguf")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(NotGGUF):
        read_header(path)


def test_a_default_system_message_is_removed_from_the_template(tmp_path):
    template = CHATML.replace("{{", DEFAULT_SYSTEM_MESSAGE + "{{", 1)
    header = read_header(gguf(tmp_path / "a.gguf", **{"tokenizer.chat_template": template}))
    assert header.chat_template == CHATML
