"""The progress of a generation, and its measurements at the end.

Ollama runs a generation with reasoning and a format twice: first without the format, until the
reasoning ends, and then again under the format, with the reasoning in the prompt. It reports the
counts and times of the second run only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mes.domain import Prompt, Usage
from mes.errors import GenerationTimeout
from mes.ollama.responses import require_count

Part = Mapping[str, Any]


_SHORTEST_LOAD_MS = 100.0


def load_milliseconds(part: Mapping[str, Any]) -> float:
    """Return for how long the runtime loaded the model of a response; 0 if it was in memory.

    A loaded model takes a few milliseconds to find; a busy machine makes it more.
    """
    milliseconds = require_count(part, "load_duration") / 1e6
    return milliseconds if milliseconds >= _SHORTEST_LOAD_MS else 0.0


class Measurements(NamedTuple):
    """The counts and the times of a generation; the times are in milliseconds."""

    usage: Usage
    prompt_ms: float
    generation_ms: float
    time_to_first_token_ms: float


@dataclass(slots=True)
class GenerationProgress:
    """The pieces of a generation that have arrived: for most models, each is one token.

    Args:
        may_run_twice: whether the runtime may report the counts of a second run only.
        sent_at: the time of the request on the monotonic clock.
    """

    may_run_twice: bool
    sent_at: float = field(default_factory=time.monotonic)
    reasoning_pieces: int = 0
    answer_pieces: int = 0
    _first_at: float = 0.0

    @classmethod
    def of(cls, prompt: Prompt) -> GenerationProgress:
        """Return the progress of a generation that begins now."""
        return cls(may_run_twice=bool(prompt.think) and prompt.format is not None)

    @property
    def pieces(self) -> int:
        return self.reasoning_pieces + self.answer_pieces

    @contextmanager
    def noted_in_timeouts(self) -> Iterator[None]:
        """Set the number of generated tokens in a GenerationTimeout."""
        try:
            yield
        except GenerationTimeout as exc:
            exc.generated_tokens = self.pieces
            raise

    def add(self, reasoning: str, text: str) -> None:
        """Count a line of the response with these pieces of text, which may be empty."""
        self.reasoning_pieces += bool(reasoning)
        self.answer_pieces += bool(text)
        if reasoning or text:
            self._first_at = self._first_at or time.monotonic()

    def measure(self, last: Part) -> Measurements:
        """Return the measurements in the last line of the response, for all its runs together.

        Raises RuntimeReplyInvalid if a measurement is not a count.
        """
        waited_ms = ((self._first_at or time.monotonic()) - self.sent_at) * 1000
        measured = Measurements(
            Usage(require_count(last, "prompt_eval_count"), require_count(last, "eval_count")),
            prompt_ms=require_count(last, "prompt_eval_duration") / 1e6,
            generation_ms=require_count(last, "eval_duration") / 1e6,
            time_to_first_token_ms=waited_ms,
        )
        return self._with_first_run(measured, last) if self._has_second_run(measured) else measured

    def _has_second_run(self, measured: Measurements) -> bool:
        # A single run has at least as many tokens as pieces.
        is_counted = measured.usage.completion_tokens >= self.pieces
        return self.may_run_twice and bool(self.reasoning_pieces) and not is_counted

    def _with_first_run(self, second: Measurements, last: Part) -> Measurements:
        """Return the measurements of both runs.

        The runtime measures the whole time. What is left for the first run begins with its prompt,
        which ends at the first token.
        """
        load_ms = require_count(last, "load_duration") / 1e6
        total_ms = require_count(last, "total_duration") / 1e6
        first_ms = max(0.0, total_ms - load_ms - second.prompt_ms - second.generation_ms)
        prompt_ms = min(first_ms, max(0.0, second.time_to_first_token_ms - load_ms))
        return second._replace(
            usage=second.usage.with_counted(self.reasoning_pieces),
            prompt_ms=second.prompt_ms + prompt_ms,
            generation_ms=second.generation_ms + first_ms - prompt_ms,
        )
