"""Requests: what is asked for, and what of that the runtime is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mes.domain.models import ModelSpec

SCHEMA_PLACE = "/json_schema"
"""Where requests of our own have their schema, as a JSON pointer."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the model wants to be called."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; images in base64, as they came.

    A turn of the assistant may hold calls, and a turn of role `tool` what came of one of them.
    """

    role: str
    content: str
    images: tuple[str, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    tool_name: str | None = None


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """What a caller asks for; None means: as the model's configuration says.

    Either a prompt, with a system prompt perhaps, or messages; tools go with messages. With
    `top_logprobs`, even with 0, each token comes with its probability.
    """

    model_id: str
    prompt: str = ""
    system_prompt: str | None = None
    messages: tuple[Message, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    think: bool | str = False
    top_logprobs: int | None = None
    stream: bool = False
    temperature: float | None = None
    max_tokens: int | None = None
    timeout_seconds: float | None = None
    json_schema: Mapping[str, Any] | None = None
    json_schema_at: str = SCHEMA_PLACE
    """where in what the caller has sent, as a JSON pointer"""
    max_attempts: int | None = None
    constrain: bool = True
    sampling: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the runtime is asked to complete; `options` are the effective ones, all of them.

    With messages, it is a conversation, and `text` and `system` say nothing. `format` constrains
    decoding: to a JSON Schema, or with "json" to any JSON object.
    """

    spec: ModelSpec
    text: str
    system: str | None
    options: Mapping[str, Any]
    format: Mapping[str, Any] | str | None = None
    messages: tuple[Message, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    think: bool | str = False
    top_logprobs: int | None = None

    @property
    def question(self) -> str:
        """What the user said last."""
        return self.messages[self._last_of_user].content if self.messages else self.text

    def rephrased(self, question: str) -> Prompt:
        """The same prompt with another question."""
        if not self.messages:
            return replace(self, text=question)
        turns = list(self.messages)
        turns[self._last_of_user] = replace(turns[self._last_of_user], content=question)
        return replace(self, messages=tuple(turns))

    @property
    def _last_of_user(self) -> int:
        return max(n for n, each in enumerate(self.messages) if each.role == "user")
