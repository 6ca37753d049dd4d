"""Reader for the header of a GGUF file: the metadata of a model, without its weights."""

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
# Longer arrays are skipped: a vocabulary has 10^5 entries and is not needed here. Stop words and
# languages have a few.
LONGEST_ARRAY_KEPT = 64
# ChatML templates often add a default system message if the request has none, so that the model
# follows instructions that the client did not send. Ollama uses plain ChatML for these models.
DEFAULT_SYSTEM_MESSAGE = re.compile(
    r"{%-? *if loop\.first and messages\[0\]\['role'\] != 'system' *-?%}.*?{%-? *endif *-?%}", re.S
)
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16",
}  # fmt: skip


class NotGGUF(RuntimeFailure):
    """The file is not a GGUF file, or it ends inside its header."""


@dataclass(frozen=True)
class Header:
    """Metadata of a model; arrays longer than `LONGEST_ARRAY_KEPT` are None."""

    metadata: dict[str, Any]
    parameter_count: int

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", "unknown"))

    @property
    def context_length(self) -> int:
        """Context length of the training in tokens; 0 if the file does not state it."""
        return int(self._architecture_value("context_length") or 0)

    @property
    def embedding_length(self) -> int:
        return int(self._architecture_value("embedding_length") or 0)

    @property
    def is_embedding(self) -> bool:
        return self._architecture_value("pooling_type") is not None

    @property
    def quantization(self) -> str:
        return FILE_TYPES.get(self.metadata.get("general.file_type", -1), "unknown")

    @property
    def chat_template(self) -> str:
        """The file's template without a default system message; "" if the file has none."""
        template = str(self.metadata.get("tokenizer.chat_template", ""))
        return DEFAULT_SYSTEM_MESSAGE.sub("", template)

    @property
    def begin_token(self) -> int | None:
        """The id of the token that the engine puts before each text; None if it adds none."""
        # Without the key, the engine adds it for vocabularies of the kind "llama".
        is_llama = self.metadata.get("tokenizer.ggml.model") == "llama"
        is_added = self.metadata.get("tokenizer.ggml.add_bos_token", is_llama)
        return self.metadata.get("tokenizer.ggml.bos_token_id") if is_added else None

    def _architecture_value(self, key: str) -> Any:
        return self.metadata.get(f"{self.architecture}.{key}")


def read_header(path: Path) -> Header:
    """Return the header of the file at `path`. Raise `NotGGUF` if it has no valid one."""
    with path.open("rb") as file:
        try:
            return _Reader(file).header()
        except (struct.error, KeyError, OverflowError, MemoryError) as exc:
            raise NotGGUF(f"invalid GGUF header in {path.name}: {exc!r}") from exc


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
