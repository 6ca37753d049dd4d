"""Small model files, generated for a test."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world", "##s", "a", "b", "."]
WIDTH, INNER, POSITIONS = 32, 64, 64


def gguf(path: Path, *, tensors: bool = True, **metadata: str | int | list[str]) -> Path:
    """Write a GGUF file with a header and no weights; return its path."""
    pairs = {"general.architecture": "llama", "llama.context_length": 128, **metadata}
    infos = [("token_embd.weight", (8, 10)), ("norm.weight", (8,))] if tensors else []
    raw = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(pairs))
    raw += b"".join(_string(key) + _value(value) for key, value in pairs.items())
    for name, shape in infos:
        raw += _string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    return path


def sentence_encoder(folder: Path) -> Path:
    """Write a BERT with random weights, its config and vocabulary; return the weights' path."""
    chance = random.Random(1)
    header, data = {}, b""
    for name, shape in _bert_shapes():
        count = shape[0] * (shape[1] if len(shape) == 2 else 1)
        values = struct.pack(f"<{count}f", *(chance.gauss(0, 0.3) for _ in range(count)))
        offsets = [len(data), len(data) + len(values)]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
        data += values
    raw = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "config.json").write_text(json.dumps(_bert_config()))
    return folder / "model.safetensors"


def _bert_config() -> dict[str, Any]:
    return {
        "vocab_size": len(WORDS),
        "hidden_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": INNER,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
    }


def _bert_shapes() -> list[tuple[str, list[int]]]:
    block = "encoder.layer.0."
    square = ["attention.self.query", "attention.self.key", "attention.self.value"]
    dense = dict.fromkeys([*square, "attention.output.dense"], (WIDTH, WIDTH))
    dense |= {"intermediate.dense": (INNER, WIDTH), "output.dense": (WIDTH, INNER)}
    norms = [f"{block}attention.output.LayerNorm", f"{block}output.LayerNorm"]
    shapes = [
        ("embeddings.word_embeddings.weight", [len(WORDS), WIDTH]),
        ("embeddings.position_embeddings.weight", [POSITIONS, WIDTH]),
        ("embeddings.token_type_embeddings.weight", [2, WIDTH]),
        ("pooler.dense.weight", [WIDTH, WIDTH]),
    ]
    for name, shape in dense.items():
        shapes += [(f"{block}{name}.weight", list(shape)), (f"{block}{name}.bias", [shape[0]])]
    for name in ["embeddings.LayerNorm", *norms]:
        shapes += [(f"{name}.weight", [WIDTH]), (f"{name}.bias", [WIDTH])]
    return shapes


def _value(value: str | int | list[str]) -> bytes:
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_string, value))


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw
