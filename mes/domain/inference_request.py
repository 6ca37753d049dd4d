"""Inference requests as clients send them, and the prompts that runtimes get."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mes.domain.models import ModelSpec
from mes.domain.tools import MODEL_CHOOSES, REQUIRED, Tool, ToolChoice

SCHEMA_POINTER, MODEL_POINTER, THINK_POINTER = "/json_schema", "/model_id", "/think"
"""The JSON pointers to these fields in a request of the native API."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a function that the model asks the client to make.

    `arguments` are an object; a text if the model or the client wrote something else.
    """

    id: str
    name: str
    arguments: Mapping[str, Any] | str

    @property
    def arguments_text(self) -> str:
        """The arguments as JSON; unchanged if they are a text."""
        if isinstance(self.arguments, str):
            return self.arguments
        return json.dumps(dict(self.arguments), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    `images` are in base64, unchanged. A message of the assistant may contain tool calls; a message
    with the role `tool` contains the result of the call with the id `tool_call_id`.
    """

    role: str
    content: str
    images: tuple[str, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    tool_name: str | None = None


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One inference as the client asks for it. None means the value of the model's configuration.

    A request has either a `prompt` with an optional `system_prompt`, or `messages`.
    `prompt_tokens` are the prompt as token ids of the model, instead of its text. If
    `top_logprobs` is set, even to 0, each token comes with its probability. `json_schema_pointer`
    is the JSON pointer to the schema in the body that the client sent; errors about the schema
    start with it. `model_pointer` and `think_pointer` are those to the fields that `model_id` and
    `think` come from. `seed_offset` is added to a seed that is set; it is the number of the choice
    in a request with several ones. `ignored` are the names of parameters that the client sent and
    that have no effect.
    """

    model_id: str
    prompt: str = ""
    prompt_tokens: tuple[int, ...] = ()
    system_prompt: str | None = None
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = MODEL_CHOOSES
    parallel_tool_calls: bool = True
    think: bool | str = False
    top_logprobs: int | None = None
    stream: bool = False
    temperature: float | None = None
    max_tokens: int | None = None
    timeout_seconds: float | None = None
    json_schema: Mapping[str, Any] | None = None
    json_schema_pointer: str = SCHEMA_POINTER
    model_pointer: str = MODEL_POINTER
    think_pointer: str = THINK_POINTER
    max_attempts: int | None = None
    constrain: bool = True
    sampling: Mapping[str, Any] = field(default_factory=dict)
    seed_offset: int = 0
    ignored: tuple[str, ...] = ()

    @property
    def allowed_tools(self) -> dict[int, Tool]:
        """The tools that the model may call, by their index in `tools`."""
        return self.tool_choice.select(self.tools)

    @property
    def must_call(self) -> bool:
        """Whether the answer has to be a call of a tool."""
        return self.tool_choice.kind == REQUIRED

    @property
    def forced_function(self) -> Mapping[str, Any] | None:
        """The only function that may be called if a call is required, else None."""
        tools = list(self.allowed_tools.values())
        is_forced = self.must_call and len(tools) == 1
        return tools[0]["function"] if is_forced else None

    @property
    def conversation(self) -> tuple[Message, ...]:
        """The messages; those that have the same meaning as the prompt, if there are none."""
        if self.messages:
            return self.messages
        system = () if self.system_prompt is None else (Message("system", self.system_prompt),)
        return (*system, Message("user", self.prompt))


@dataclass(frozen=True, slots=True)
class Prompt:
    """The input of one generation.

    `options` are all effective options of the runtime. If there are `messages`, they are the
    prompt, and `text` and `system` are not used. `format` constrains decoding: to a JSON Schema,
    or to any JSON object if it is "json".
    """

    spec: ModelSpec
    text: str
    system: str | None
    options: Mapping[str, Any]
    format: Mapping[str, Any] | str | None = None
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()
    think: bool | str = False
    top_logprobs: int | None = None

    @property
    def characters(self) -> int:
        """The length of the whole text."""
        texts = [each.content for each in self.messages] or [self.text, self.system or ""]
        return sum(map(len, texts))

    @property
    def question(self) -> str:
        """The last turn that is not the model's own, or the text; "" if there is no such turn."""
        if not self.messages:
            return self.text
        index = self._question_index
        return "" if index is None else self.messages[index].content

    def with_question(self, question: str) -> Prompt:
        """Return the same prompt with another question.

        A conversation in which all turns are the model's own gets it as a system message.
        """
        if not self.messages:
            return replace(self, text=question)
        messages, index = list(self.messages), self._question_index
        if index is None:
            messages.insert(0, Message("system", question.strip()))
        else:
            messages[index] = replace(messages[index], content=question)
        return replace(self, messages=tuple(messages))

    @property
    def _question_index(self) -> int | None:
        # The model continues its own messages at the end, so nothing is added to them.
        turns = (n for n, message in enumerate(self.messages) if message.role != "assistant")
        return max(turns, default=None)
