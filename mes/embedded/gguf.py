"""Reader for the header of a GGUF file: what the model is, without its weights."""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mes.embedded.api_errors import RuntimeFailure

STRING, ARRAY = 8, 9
SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
# A vocabulary has 10^5 entries and nobody asks for it; the stop words and languages have a few.
LONGEST_ARRAY_KEPT = 64
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16",
}  # fmt: skip


class NotGGUF(RuntimeFailure):
    """The file is not a GGUF, or it ends inside its header"""


@dataclass(frozen=True)
class Header:
    metadata: dict[str, Any]
    parameter_count: int

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", "unknown"))

    @property
    def context_length(self) -> int:
        """What the model was trained for; 0 where the file does not say"""
        return int(self._of_architecture("context_length") or 0)

    @property
    def embedding_length(self) -> int:
        return int(self._of_architecture("embedding_length") or 0)

    @property
    def is_embedding(self) -> bool:
        return self._of_architecture("pooling_type") is not None

    @property
    def quantization(self) -> str:
        return FILE_TYPES.get(self.metadata.get("general.file_type", -1), "unknown")

    @property
    def chat_template(self) -> str:
        return str(self.metadata.get("tokenizer.chat_template", ""))

    def _of_architecture(self, key: str) -> Any:
        return self.metadata.get(f"{self.architecture}.{key}")


def read_header(path: Path) -> Header:
    """Metadata (long arrays as None) with the number of weights; NotGGUF for anything else"""
    with path.open("rb") as file:
        try:
            return _Reader(file).header()
        except (struct.error, KeyError, OverflowError, MemoryError) as exc:
            raise NotGGUF(f"unexpected end or content of {path.name}: {exc!r}") from exc


class _Reader:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def header(self) -> Header:
        if self._file.read(4) != b"GGUF" or self._scalar("I") not in (2, 3):
            raise NotGGUF("invalid file magic")
        tensors, pairs = self._scalar("Q"), self._scalar("Q")
        metadata = dict(self._pair() for _ in range(pairs))
        return Header(metadata, sum(self._tensor_size() for _ in range(tensors)))

    def _pair(self) -> tuple[str, Any]:
        return self._string(), self._value(self._scalar("I"))

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string()
        return self._array() if kind == ARRAY else self._scalar(SCALARS[kind])

    def _array(self) -> list[Any] | None:
        kind, length = self._scalar("I"), self._scalar("Q")
        if length <= LONGEST_ARRAY_KEPT:
            return [self._value(kind) for _ in range(length)]
        self._skip(kind, length)
        return None

    def _skip(self, kind: int, length: int) -> None:
        if kind == STRING:
            for _ in range(length):
                self._file.seek(self._scalar("Q"), 1)
        else:
            self._file.seek(length * struct.calcsize(SCALARS[kind]), 1)

    def _tensor_size(self) -> int:
        self._string()
        dimensions = [self._scalar("Q") for _ in range(self._scalar("I"))]
        self._scalar("I")
        self._scalar("Q")
        return math.prod(dimensions)

    def _string(self) -> str:
        length = self._scalar("Q")
        raw = self._file.read(length)
        if len(raw) < length:
            raise NotGGUF("unexpected EOF")
        return raw.decode("utf-8", "replace")

    def _scalar(self, code: str) -> Any:
        (value,) = struct.unpack("<" + code, self._file.read(struct.calcsize(code)))
        return value


# The chat template that a model is run with.

# ChatML templates often open with a system message of their own when the caller sent none, so the
# model answers to words that nobody wrote. Ollama runs these files with plain ChatML.
UNASKED_SYSTEM_MESSAGE = re.compile(
    r"{%-? *if loop\.first and messages\[0\]\['role'\] != 'system' *-?%}.*?{%-? *endif *-?%}", re.S
)


def chat_template(header: Header) -> str:
    """The file's own, without a system message that the caller did not send; "" if it has none"""
    return UNASKED_SYSTEM_MESSAGE.sub("", header.chat_template)
