"""The nouns MES speaks of, frozen; and the interfaces with two implementations."""

from mes.domain.events import Event, Loading, Queued, Tell, Thought, Token, silent
from mes.domain.inference import (
    Attempt,
    Inference,
    Judgement,
    Keywords,
    Provenance,
    Timings,
    Violation,
    final,
)
from mes.domain.models import (
    LOAD_OPTIONS,
    LoadedModel,
    ModelCard,
    ModelSpec,
    PulledModel,
    PullProgress,
    normalise,
)
from mes.domain.replies import Logprob, Reply, Usage, Vectors, milliseconds, rate, total
from mes.domain.requests import SCHEMA_PLACE, InferenceRequest, Message, Prompt, ToolCall
from mes.domain.runtime import Caller, Runtime

__all__ = [
    "LOAD_OPTIONS",
    "SCHEMA_PLACE",
    "Attempt",
    "Caller",
    "Event",
    "Inference",
    "InferenceRequest",
    "Judgement",
    "Keywords",
    "LoadedModel",
    "Loading",
    "Logprob",
    "Message",
    "ModelCard",
    "ModelSpec",
    "Prompt",
    "Provenance",
    "PullProgress",
    "PulledModel",
    "Queued",
    "Reply",
    "Runtime",
    "Tell",
    "Thought",
    "Timings",
    "Token",
    "ToolCall",
    "Usage",
    "Vectors",
    "Violation",
    "final",
    "milliseconds",
    "normalise",
    "rate",
    "silent",
    "total",
]
