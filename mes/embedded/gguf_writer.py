"""Converter of the MiniLM sentence encoder from safetensors to GGUF.

It needs only the standard library.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

U32, F32, BOOL, STRING_TYPE, ARRAY_TYPE, I32 = 4, 6, 7, 8, 9, 5
MEAN_POOLING = 1
NORMAL_TOKEN, CONTROL_TOKEN = 1, 3
ALIGNMENT = 32
FLOATS_PER_READ = 1 << 18
NAMES = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: list[int]
    start: int
    """Position of its float32 values in the source file."""

    @property
    def count(self) -> int:
        return self.shape[0] * (self.shape[1] if len(self.shape) == 2 else 1)

    @property
    def is_half(self) -> bool:
        """Whether to store float16. Tensors that are added, not multiplied, must stay float32."""
        return len(self.shape) == 2 and not self.name.startswith(("position_embd", "token_types"))

    @property
    def size(self) -> int:
        return _padded(self.count * (2 if self.is_half else 4))


def convert_to_gguf(weights: Path, target: Path) -> None:
    """Write the GGUF file `target` from `weights` and the config.json and vocab.txt beside it."""
    config = json.loads((weights.parent / "config.json").read_text())
    vocabulary = (
        (weights.parent / "vocab.txt").read_text("utf-8").split("\n")[: config["vocab_size"]]
    )
    with weights.open("rb") as source, target.open("wb") as file:
        tensors = list(_tensors(source))
        _write_header(file, tensors, _metadata(config, vocabulary))
        for tensor in tensors:
            _write_values(source, file, tensor)


def _tensors(source: BinaryIO) -> Iterator[Tensor]:
    (length,) = struct.unpack("<Q", source.read(8))
    for name, entry in json.loads(source.read(length)).items():
        if renamed := _renamed(name):
            yield Tensor(renamed, entry["shape"], 8 + length + entry["data_offsets"][0])


def _renamed(name: str) -> str | None:
    stem, _, kind = name.rpartition(".")
    block = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", stem)
    known = NAMES.get(block[2] if block else stem)
    if known is None:
        return None  # the pooler and the position ids, of which llama.cpp has its own
    return f"blk.{block[1]}.{known}.{kind}" if block else f"{known}.{kind}"


def _metadata(config: dict[str, Any], vocabulary: list[str]) -> list[bytes]:
    types = [CONTROL_TOKEN if _is_special(word) else NORMAL_TOKEN for word in vocabulary]
    return [
        _pair("general.architecture", STRING_TYPE, "bert"),
        _pair("general.name", STRING_TYPE, "all-MiniLM-L6-v2"),
        _pair("general.license", STRING_TYPE, "apache-2.0"),
        _pair("general.file_type", U32, 1),
        _pair("bert.block_count", U32, config["num_hidden_layers"]),
        _pair("bert.context_length", U32, config["max_position_embeddings"]),
        _pair("bert.embedding_length", U32, config["hidden_size"]),
        _pair("bert.feed_forward_length", U32, config["intermediate_size"]),
        _pair("bert.attention.head_count", U32, config["num_attention_heads"]),
        _pair("bert.attention.layer_norm_epsilon", F32, config["layer_norm_eps"]),
        _pair("bert.attention.causal", BOOL, False),
        _pair("bert.pooling_type", U32, MEAN_POOLING),
        _pair("tokenizer.ggml.model", STRING_TYPE, "bert"),
        _pair("tokenizer.ggml.token_type_count", U32, config["type_vocab_size"]),
        _pair(
            "tokenizer.ggml.tokens",
            ARRAY_TYPE,
            (STRING_TYPE, [_token(word) for word in vocabulary]),
        ),
        _pair("tokenizer.ggml.token_type", ARRAY_TYPE, (I32, types)),
        _pair("tokenizer.ggml.unknown_token_id", U32, vocabulary.index("[UNK]")),
        _pair("tokenizer.ggml.bos_token_id", U32, vocabulary.index("[CLS]")),
        _pair("tokenizer.ggml.seperator_token_id", U32, vocabulary.index("[SEP]")),  # sic
        _pair("tokenizer.ggml.padding_token_id", U32, vocabulary.index("[PAD]")),
        _pair("tokenizer.ggml.mask_token_id", U32, vocabulary.index("[MASK]")),
    ]


def _is_special(word: str) -> bool:
    return word.startswith("[") and word.endswith("]")


def _token(word: str) -> str:
    """Return `word` in llama.cpp's spelling: it marks word starts, BERT marks continuations."""
    if _is_special(word):
        return word
    return word[2:] if word.startswith("##") else "\u2581" + word


def _write_header(file: BinaryIO, tensors: list[Tensor], metadata: list[bytes]) -> None:
    file.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
    file.write(b"".join(metadata))
    offset = 0
    for tensor in tensors:
        shape = tensor.shape[::-1]
        file.write(_string(tensor.name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape))
        file.write(struct.pack("<IQ", int(tensor.is_half), offset))
        offset += tensor.size
    file.write(bytes(_padded(file.tell()) - file.tell()))


def _write_values(source: BinaryIO, file: BinaryIO, tensor: Tensor) -> None:
    source.seek(tensor.start)
    remaining = tensor.count
    while remaining:
        count = min(remaining, FLOATS_PER_READ)
        raw = source.read(4 * count)
        file.write(_to_float16(raw, count) if tensor.is_half else raw)
        remaining -= count
    file.write(bytes(_padded(file.tell()) - file.tell()))


def _to_float16(raw: bytes, count: int) -> bytes:
    return struct.pack(f"<{count}e", *struct.unpack(f"<{count}f", raw))


def _pair(key: str, kind: int, value: Any) -> bytes:
    return _string(key) + struct.pack("<I", kind) + _value(kind, value)


def _value(kind: int, value: Any) -> bytes:
    if kind == STRING_TYPE:
        return _string(value)
    if kind == ARRAY_TYPE:
        item, values = value
        return struct.pack("<IQ", item, len(values)) + b"".join(_value(item, v) for v in values)
    return struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}[kind], value)


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
