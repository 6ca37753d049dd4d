"""The header of a GGUF file tells what the model is."""

import pytest

from mes.embedded.gguf import NotGGUF, chat_template, read_header

from .files import gguf

CHATML = "{% for m in messages %}{{ m['role'] }}{% endfor %}"
UNASKED = (
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}{% endif %}"
)


def test_the_header_tells_architecture_context_and_size(tmp_path):
    header = read_header(gguf(tmp_path / "a.gguf", **{"general.file_type": 15}))
    assert (header.architecture, header.context_length) == ("llama", 128)
    assert (header.parameter_count, header.quantization) == (88, "Q4_K_M")


def test_a_long_vocabulary_is_skipped_without_losing_what_follows(tmp_path):
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


@pytest.mark.parametrize("kept", [0, 3, 20, 60, -1])
def test_a_file_that_is_cut_or_foreign_is_no_gguf(tmp_path, kept):
    path = gguf(tmp_path / "a.gguf")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(NotGGUF):
        read_header(path)


def test_a_template_loses_the_system_message_that_nobody_sent(tmp_path):
    template = CHATML.replace("{{", UNASKED + "{{", 1)
    header = read_header(gguf(tmp_path / "a.gguf", **{"tokenizer.chat_template": template}))
    assert chat_template(header) == CHATML
