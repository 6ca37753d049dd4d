"""Payloads of the requests to /api/generate and /api/chat: generations, loads and unloads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

from mes.domain import KEEP_ALIVE_SECONDS, Message, ModelSpec, Prompt, ToolCall

_UNLOAD_NOW = 0

# `shift` is part of the loaded model: with another value, Ollama would load the model again.
_SHARED_FIELDS = {"stream": True, "shift": False}


def goes_to_chat(prompt: Prompt) -> bool:
    """Return whether the prompt is sent to /api/chat: as a conversation, or because of its format.

    Beside `think`, /api/generate constrains the reasoning to the format, and the answer of most
    models stays empty. /api/chat lets the model think, and constrains the answer in a second run.
    """
    return bool(prompt.messages) or (bool(prompt.think) and prompt.format is not None)


def generation_payload(prompt: Prompt) -> dict[str, Any]:
    """Return the body of a generation, for /api/chat if `goes_to_chat`, else for /api/generate.

    Only a load sets `keep_alive`. Ollama makes room by marking a busy model to leave, and a request
    with `keep_alive` would remove the mark, so that the load of the other model waits forever.
    """
    payload = {
        "model": prompt.spec.tag,
        **_prompt_fields(prompt),
        "options": prompt.options,
        "truncate": False,  # a prompt that is too long is an error
        "think": prompt.think,
        **_SHARED_FIELDS,
    }
    if prompt.format is not None:
        payload["format"] = prompt.format
    if prompt.tools:
        payload["tools"] = prompt.tools
    if prompt.top_logprobs is not None:
        payload.update(logprobs=True, top_logprobs=prompt.top_logprobs)
    return payload


def _prompt_fields(prompt: Prompt) -> dict[str, Any]:
    if goes_to_chat(prompt):
        messages = _join_last_answers(prompt.messages or _as_messages(prompt))
        return {"messages": [_message_payload(message) for message in messages]}
    fields = {"prompt": prompt.text}
    return fields if prompt.system is None else {**fields, "system": prompt.system}


def _as_messages(prompt: Prompt) -> Sequence[Message]:
    """Return the messages that /api/generate makes of the prompt.

    An empty system prompt counts as none there: the model's own applies.
    """
    system = [Message("system", prompt.system)] if prompt.system else []
    return [*system, Message("user", prompt.text)]


def _join_last_answers(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with the assistant's texts at the end as one, which the model continues.

    The runtime refuses several, and the engine writes a role into the continuation of an empty one.
    """
    at_end = list(takewhile(_is_text, reversed(messages)))
    earlier = messages[: len(messages) - len(at_end)]
    texts = [message.content for message in reversed(at_end) if message.content]
    joined = [replace(messages[-1], content="\n\n".join(texts))] if texts else []
    return [*earlier, *joined] or list(messages)


def _is_text(message: Message) -> bool:
    return message.role == "assistant" and not message.tool_calls


def _message_payload(message: Message) -> dict[str, Any]:
    fields = {
        "role": message.role,
        "content": message.content,
        "images": message.images,
        "tool_calls": [_tool_call_payload(call) for call in message.tool_calls],
        "tool_call_id": message.tool_call_id,
        "tool_name": message.tool_name,
    }
    return {name: value for name, value in fields.items() if value or name == "content"}


def _tool_call_payload(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}}


def load_payload(spec: ModelSpec) -> dict[str, Any]:
    """Return the body for /api/generate that loads a model which generates text."""
    return {
        "model": spec.tag,
        "prompt": "",
        "options": spec.load_options,
        "keep_alive": KEEP_ALIVE_SECONDS,
        **_SHARED_FIELDS,
    }


def unload_payload(name: str) -> dict[str, Any]:
    """Return the body for /api/generate that unloads a model."""
    return {"model": name, "prompt": "", "stream": True, "keep_alive": _UNLOAD_NOW}
