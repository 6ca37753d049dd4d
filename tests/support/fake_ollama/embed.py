"""What the fake runtime is asked to embed, and the vectors that come of it."""

from __future__ import annotations

import hashlib
import math
import time
from typing import Any

from tests.support.fake_ollama.answers import DEFAULT_NUM_CTX, Refused
from tests.support.fake_ollama.ask import Ask
from tests.support.fake_ollama.model import Model

DIMENSIONS = 8
_TRAINED_CONTEXT = 2048
Vector = list[float]


class EmbedAsk(Ask):
    """A request to /api/embed; without texts, it only loads."""

    def __init__(self, asked: dict[str, Any]) -> None:
        super().__init__(asked, chat=False)
        self.texts = _texts(asked.get("input"))

    @property
    def stage(self) -> str:
        return "embed" if self.texts else "load"

    def check_fits(self, model: Model) -> None:
        """Refuse what Ollama finds out once the model is loaded; it gives no numbers."""
        if not model.embeds:
            text = "This server does not support embeddings. Start it with `--embeddings`"
            raise Refused(501, text)
        window = _window(model)
        if not self._asked.get("truncate", True) and max(map(_tokens, self.texts)) > window:
            raise Refused(400, "the input length exceeds the context length")

    def bare(self, reason: str) -> dict[str, Any]:
        return {"model": self.name, "embeddings": []}

    def vectors(self, model: Model, began: int, started: int) -> dict[str, Any]:
        """The answer, with what was measured."""
        dimensions = self._asked.get("dimensions") or DIMENSIONS
        counts = (min(_tokens(text), _window(model)) for text in self.texts)
        return {
            "model": self.name,
            "embeddings": [_normal(vector_of(text)[:dimensions]) for text in self.texts],
            "total_duration": time.monotonic_ns() - began,
            "load_duration": started - began,
            "prompt_eval_count": sum(counts),
        }

    def _check_capability(self, model: Model) -> None:
        """None is checked: a model that cannot is loaded first."""


def vector_of(text: str) -> Vector:
    """Always the same for a text, of length 1."""
    return _normal([byte - 127.5 for byte in hashlib.sha256(text.encode()).digest()[:DIMENSIONS]])


def _normal(vector: Vector) -> Vector:
    length = math.hypot(*vector)
    return [number / length for number in vector]


def _texts(given: Any) -> list[str]:
    texts = [given] if isinstance(given, str) and given else given or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Refused(400, "invalid input type")
    return texts


def _tokens(text: str) -> int:
    return len(text.split()) + 2


def _window(model: Model) -> int:
    return min(model.options.get("num_ctx", DEFAULT_NUM_CTX), _TRAINED_CONTEXT)
