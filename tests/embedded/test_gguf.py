"""The header of a GGUF file describes the model; a damaged one is one kind of error."""

import json
import math
import random
import struct

import pytest

from mes.embedded import api
from mes.embedded import gguf as gguf_reader
from mes.embedded.gguf import NotGGUF, read_header
from mes.embedded.model_store import ModelName, ModelStore, StoredModel

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


def string(text):
    return struct.pack("<Q", len(text)) + text


def header(*pairs, tensors=()):
    """Return the bytes of a header with these encoded pairs and tensors."""
    return b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + b"".join([*pairs, *tensors])


def tensor(*dimensions, count=None):
    count = len(dimensions) if count is None else count
    return string(b"t") + struct.pack(f"<I{len(dimensions)}QIQ", count, *dimensions, 0, 0)


def pair(key, kind, value):
    return string(key) + struct.pack("<I", kind) + value


NESTED = pair(b"a", 9, struct.pack("<IQ", 9, 1) * 5000)
MANY_WORDS = pair(b"a", 9, struct.pack("<IQ", 8, 2**60))
TEMPLATE = b"tokenizer.chat_template"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (header(tensors=[tensor(count=200_000)]), "dimensions of a tensor is 200000, the limit is"),
        (header(tensors=[tensor(2**62, 2**62)]), "more than 4611686018427387904 parameters"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0), "tensors is 9223372036854775808"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63), "pairs of metadata is"),
        (header(pair(TEMPLATE, 8, string(b"x" * 1_000_000))), f"{TEMPLATE.decode()} is not a text"),
        (header(pair(TEMPLATE, 4, struct.pack("<I", 1))), f"{TEMPLATE.decode()} is not a text"),
        (header(pair(b"unknown.context_length", 8, string(b"8"))), "is not a whole number"),
        (header(pair(b"general.file_type", 9, struct.pack("<IQ", 4, 0))), "is not a whole number"),
        (header(NESTED), "an array has arrays"),
        (header(MANY_WORDS), "unexpected EOF"),
        (header(pair(b"a", 99, b"")), "unknown type 99"),
        (header(pair(b"a", 8, struct.pack("<Q", 2**64 - 1))), "unexpected EOF"),
    ],
)
def test_a_harmful_header_is_refused_with_the_reason(tmp_path, raw, reason):
    path = tmp_path / "bad.gguf"
    path.write_bytes(raw)
    with pytest.raises(NotGGUF, match=f"invalid GGUF header in bad.gguf: .*{reason}"):
        read_header(path)


def test_the_bytes_that_are_read_of_a_header_are_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_reader, "MOST_BYTES_READ", 100)
    with pytest.raises(NotGGUF, match="larger than 100 bytes"):
        read_header(gguf(tmp_path / "a.gguf"))


def test_numbers_that_are_not_finite_are_left_out(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(header(pair(b"a", 6, struct.pack("<f", math.nan))))
    assert read_header(path).metadata == {"a": None}


def mutated(raw, chance):
    """Return the bytes with one to three faults: other bytes, a cut, or a part that is repeated."""
    raw = bytearray(raw)
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(raw))
        match chance.randrange(4):
            case 0:
                raw[place] = chance.randrange(256)
            case 1:
                raw[place : place + 8] = chance.choice([b"\xff" * 8, bytes(8), chance.randbytes(8)])
            case 2:
                del raw[place + 1 :]
            case _:
                raw[place:place] = raw[place : place + chance.randrange(40)]
    return bytes(raw)


def test_no_mutation_of_a_file_ends_in_another_error(tmp_path):
    chance = random.Random(1)
    metadata = {"general.languages": ["en", "de"], "general.file_type": 15, TEMPLATE.decode(): "{{"}
    path = gguf(tmp_path / "a.gguf", **metadata, **{"llama.pooling_type": 1})
    raw = path.read_bytes()
    refused = 0
    for _ in range(2000):
        path.write_bytes(mutated(raw, chance))
        try:
            model = StoredModel(ModelName("a"), path, 1, 1, read_header(path), digest="")
        except NotGGUF:
            refused += 1
            continue
        for description in (api.describe_tag(model), api.describe_model(model)):
            json.dumps(description, allow_nan=False)
    assert 500 < refused < 2000


def test_a_bad_file_is_left_out_of_the_list_and_named_in_the_log(tmp_path, caplog):
    gguf(tmp_path / "good.gguf")
    (tmp_path / "bad.gguf").write_bytes(header(NESTED))
    store = ModelStore(tmp_path)
    for _ in range(2):
        assert [str(model.name) for model in store.models()] == ["good:latest"]
    assert [record.getMessage() for record in caplog.records] == [
        f"model_file_invalid path={tmp_path}/bad.gguf reason=invalid GGUF header in bad.gguf: "
        "an array has arrays as its items"
    ]
    with pytest.raises(NotGGUF, match="an array has arrays"):
        store.find("bad")
