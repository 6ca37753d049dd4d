"""Requests of /api/embed, and their vectors."""

from __future__ import annotations

import hashlib
import math
import time
from typing import Any

from tests.support.fake_ollama.generate_request import GenerateRequest
from tests.support.fake_ollama.model import Model
from tests.support.fake_ollama.responses import DEFAULT_NUM_CTX, ErrorResponse

DIMENSIONS = 8
_TRAINED_CONTEXT = 2048
Vector = list[float]


class EmbedRequest(GenerateRequest):
    """A request of /api/embed; without texts, it only loads."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__(body, chat=False)
        self.texts = _texts(body.get("input"))

    @property
    def stage(self) -> str:
        return "embed" if self.texts else "load"

    def check_fits(self, model: Model) -> None:
        """Raise the `ErrorResponse` that Ollama gives once the model is loaded."""
        if not model.embeds:
            text = "This server does not support embeddings. Start it with `--embeddings`"
            raise ErrorResponse(501, text)
        window = _window(model)
        if not self._body.get("truncate", True) and max(map(_tokens, self.texts)) > window:
            raise ErrorResponse(400, "the input length exceeds the context length")

    def empty_answer(self, reason: str) -> dict[str, Any]:
        return {"model": self.name, "embeddings": []}

    def answer(self, model: Model, received: int, loaded: int) -> dict[str, Any]:
        """Return the answer with vectors and measurements; times are of `time.monotonic_ns`."""
        dimensions = self._body.get("dimensions") or DIMENSIONS
        counts = (min(_tokens(text), _window(model)) for text in self.texts)
        return {
            "model": self.name,
            "embeddings": [_normalized(vector_of(text)[:dimensions]) for text in self.texts],
            "total_duration": time.monotonic_ns() - received,
            "load_duration": loaded - received,
            "prompt_eval_count": sum(counts),
        }

    def _check_capability(self, model: Model) -> None:
        """Check nothing: Ollama loads the model first, see `check_fits`."""


def vector_of(text: str) -> Vector:
    """Return the unit vector of a text, always the same."""
    return _normalized(
        [byte - 127.5 for byte in hashlib.sha256(text.encode()).digest()[:DIMENSIONS]]
    )


def _normalized(vector: Vector) -> Vector:
    length = math.hypot(*vector)
    return [number / length for number in vector]


def _texts(value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) and value else value or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ErrorResponse(400, "invalid input type")
    return texts


def _tokens(text: str) -> int:
    return len(text.split()) + 2


def _window(model: Model) -> int:
    return int(min(model.options.get("num_ctx", DEFAULT_NUM_CTX), _TRAINED_CONTEXT))
