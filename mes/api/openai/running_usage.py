"""The usage in each chunk of a stream, which load generators ask for."""

from __future__ import annotations

from collections.abc import Iterator

from mes.api.choices import ChoiceChunks
from mes.api.inference_responses import InferenceOutcome
from mes.api.response_fields import Document
from mes.api.response_schemas import UsageSchema
from mes.domain import Event, Token, Usage


class RunningUsage:
    """The chunks of one choice, each with the usage of the choice so far.

    The runtime counts tokens only when it has finished. Until then the completion tokens are the
    pieces that the runtime has sent, one for each token, and the prompt tokens are 0.
    """

    def __init__(self, chunks: ChoiceChunks) -> None:
        self._chunks = chunks
        self._completion_tokens = 0

    def serialize(self, event: Event) -> Document | None:
        """Return the chunk that reports the event; None for an event that is not reported."""
        chunk = self._chunks.serialize(event)
        if chunk is None:
            return None
        self._completion_tokens += _tokens_of(event)
        return {**chunk, "usage": UsageSchema.serialize(Usage(0, self._completion_tokens))}

    def last(self, outcome: InferenceOutcome) -> Iterator[Document]:
        """Yield the chunks that come after the last event, with the usage that was counted."""
        usage = UsageSchema.serialize(outcome.inference.usage)
        yield from ({**chunk, "usage": usage} for chunk in self._chunks.last(outcome))


def _tokens_of(event: Event) -> int:
    """Return the number of tokens in a piece, which is known only with their probabilities."""
    return max(1, len(event.logprobs)) if isinstance(event, Token) else 1
