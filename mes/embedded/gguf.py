"""Reader for the header of a GGUF file: the metadata of a model, without its weights.

The file may be damaged, or made to harm the reader: each length is compared with the rest of the
file before anything of that length is read.
"""

from __future__ import annotations

import math
import os
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
# In bytes; longer texts are skipped too. The longest chat templates have 40,000.
LONGEST_STRING_KEPT = 128 * 1024
# A vocabulary of 500,000 words takes 4 MB, because only the lengths of its words are read.
MOST_BYTES_READ = 32 << 20
# Large models have 100 pairs of metadata and 2,000 tensors, each with at most 4 dimensions.
MOST_PAIRS = 10_000
MOST_TENSORS = 100_000
MOST_DIMENSIONS = 8
MOST_PARAMETERS = 2**62
LARGEST_NUMBER = 2**31 - 1
TEMPLATE = "tokenizer.chat_template"
# ChatML templates often add a default system message if the request has none, so that the model
# follows instructions that the client did not send. Ollama uses plain ChatML for these models.
DEFAULT_SYSTEM_MESSAGE = re.compile(
    r"{%-? *if loop\.first and messages\[0\]\['role'\] != 'system' *-?%}"
    r".{0,2000}?{%-? *endif *-?%}",
    re.S,
)
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16",
}  # fmt: skip


class NotGGUF(RuntimeFailure):
    """The file is not a GGUF file, or its header is damaged or beyond a limit."""


@dataclass(frozen=True)
class Header:
    """Metadata of a model. Long arrays and texts, and numbers that are not finite, are None.

    Raise `NotGGUF` if a value that is used has the wrong type or size.
    """

    metadata: dict[str, Any]
    parameter_count: int

    def __post_init__(self) -> None:
        for key in ("general.architecture", TEMPLATE, "tokenizer.ggml.model"):
            if not isinstance(self.metadata.get(key, ""), str):
                raise NotGGUF(f"{key} is not a text of at most {LONGEST_STRING_KEPT} bytes")
        lengths = [f"{self.architecture}.{name}" for name in ("context_length", "embedding_length")]
        for key in (*lengths, "general.file_type", "tokenizer.ggml.bos_token_id"):
            value = self.metadata.get(key, 0)
            if type(value) is not int or not 0 <= value <= LARGEST_NUMBER:
                raise NotGGUF(f"{key} is not a whole number from 0 to {LARGEST_NUMBER}")

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", "unknown"))

    @property
    def context_length(self) -> int:
        """Context length of the training in tokens; 0 if the file does not state it."""
        return int(self.metadata.get(f"{self.architecture}.context_length", 0))

    @property
    def embedding_length(self) -> int:
        return int(self.metadata.get(f"{self.architecture}.embedding_length", 0))

    @property
    def is_embedding(self) -> bool:
        return self.metadata.get(f"{self.architecture}.pooling_type") is not None

    @property
    def quantization(self) -> str:
        return FILE_TYPES.get(self.metadata.get("general.file_type", -1), "unknown")

    @property
    def chat_template(self) -> str:
        """The file's template without a default system message; "" if the file has none."""
        template = str(self.metadata.get(TEMPLATE, ""))
        return DEFAULT_SYSTEM_MESSAGE.sub("", template)

    @property
    def begin_token(self) -> int | None:
        """The id of the token that the engine puts before each text; None if it adds none."""
        # Without the key, the engine adds it for vocabularies of the kind "llama".
        is_llama = self.metadata.get("tokenizer.ggml.model") == "llama"
        is_added = self.metadata.get("tokenizer.ggml.add_bos_token", is_llama)
        return self.metadata.get("tokenizer.ggml.bos_token_id") if is_added else None


def read_header(path: Path) -> Header:
    """Return the header of the file at `path`. Raise `NotGGUF` if it has no valid one."""
    with path.open("rb") as file:
        try:
            return _Reader(file).header()
        except NotGGUF as exc:
            raise NotGGUF(f"invalid GGUF header in {path.name}: {exc}") from exc


class _Reader:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = os.fstat(file.fileno()).st_size
        self._budget = MOST_BYTES_READ

    def header(self) -> Header:
        if self._read(4) != b"GGUF" or self._scalar("I") not in (2, 3):
            raise NotGGUF("invalid file magic")
        tensors = self._count("tensors", "Q", MOST_TENSORS)
        pairs = self._count("pairs of metadata", "Q", MOST_PAIRS)
        metadata = dict(self._pair() for _ in range(pairs))
        parameters = sum(self._tensor_size() for _ in range(tensors))
        if parameters > MOST_PARAMETERS:
            raise NotGGUF(f"it has more than {MOST_PARAMETERS} parameters")
        return Header(metadata, parameters)

    def _pair(self) -> tuple[str, Any]:
        return self._string() or "", self._value(self._scalar("I"))

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string()
        if kind == ARRAY:
            return self._array()
        value = self._scalar(_code(kind))
        return None if isinstance(value, float) and not math.isfinite(value) else value

    def _array(self) -> list[Any] | None:
        kind, length = self._scalar("I"), self._scalar("Q")
        if kind == ARRAY:
            raise NotGGUF("an array has arrays as its items")
        if length <= LONGEST_ARRAY_KEPT:
            return [self._value(kind) for _ in range(length)]
        if kind == STRING:
            for _ in range(length):
                self._skip(self._scalar("Q"))
        else:
            self._skip(length * struct.calcsize(_code(kind)))
        return None

    def _tensor_size(self) -> int:
        self._string()
        count = self._count("dimensions of a tensor", "I", MOST_DIMENSIONS)
        dimensions = [self._scalar("Q") for _ in range(count)]
        self._scalar("I")
        self._scalar("Q")
        return math.prod(dimensions)

    def _count(self, name: str, code: str, limit: int) -> int:
        count = int(self._scalar(code))
        if count > limit:
            raise NotGGUF(f"the number of {name} is {count}, the limit is {limit}")
        return count

    def _string(self) -> str | None:
        length = self._scalar("Q")
        if length > LONGEST_STRING_KEPT:
            self._skip(length)
            return None
        return self._read(length).decode("utf-8", "replace")

    def _scalar(self, code: str) -> Any:
        (value,) = struct.unpack("<" + code, self._read(struct.calcsize("<" + code)))
        return value

    def _read(self, size: int) -> bytes:
        self._take(size)
        self._budget -= size
        if self._budget < 0:
            raise NotGGUF(f"it is larger than {MOST_BYTES_READ} bytes")
        return self._file.read(size)

    def _skip(self, size: int) -> None:
        self._take(size)
        self._file.seek(size, os.SEEK_CUR)

    def _take(self, size: int) -> None:
        if size > self._left:
            raise NotGGUF("unexpected EOF")
        self._left -= size


def _code(kind: int) -> str:
    if kind not in SCALARS:
        raise NotGGUF(f"unknown type {kind}")
    return SCALARS[kind]
