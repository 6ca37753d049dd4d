"""Bodies: what the runtime is sent, in Ollama's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mes.domain import Message, ModelSpec, Prompt, ToolCall

# MES decides what stays in memory, not Ollama's timer.
_KEEP_FOREVER = -1
_UNLOAD_NOW = 0


def generation(prompt: Prompt) -> dict[str, Any]:
    """What a text is asked for with."""
    body = {
        "model": prompt.spec.tag,
        **_words(prompt),
        "stream": True,
        "options": prompt.options,
        "keep_alive": _KEEP_FOREVER,
        # An over-long prompt is an error, never a silent cut.
        "truncate": False,
        "shift": False,
        "think": prompt.think,
    }
    if prompt.format is not None:
        body["format"] = prompt.format
    if prompt.tools:
        body["tools"] = prompt.tools
    if prompt.top_logprobs is not None:
        body.update(logprobs=True, top_logprobs=prompt.top_logprobs)
    return body


def _words(prompt: Prompt) -> dict[str, Any]:
    if prompt.messages:
        return {"messages": [_turn(message) for message in prompt.messages]}
    words = {"prompt": prompt.text}
    return words if prompt.system is None else {**words, "system": prompt.system}


def _turn(message: Message) -> dict[str, Any]:
    turn = {
        "role": message.role,
        "content": message.content,
        "images": message.images,
        "tool_calls": [_call(call) for call in message.tool_calls],
        "tool_call_id": message.tool_call_id,
        "tool_name": message.tool_name,
    }
    return {name: value for name, value in turn.items() if value or name == "content"}


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}}


def embedding(
    spec: ModelSpec, texts: Sequence[str], dimensions: int | None = None
) -> dict[str, Any]:
    """What vectors are asked for with; without texts, the model is loaded and that is all."""
    body = {
        "model": spec.tag,
        "input": texts,
        "options": spec.load_options,
        "keep_alive": _KEEP_FOREVER,
        "truncate": False,
    }
    return body if dimensions is None else {**body, "dimensions": dimensions}


def load(spec: ModelSpec) -> dict[str, Any]:
    """What a model is loaded with that writes text."""
    return {
        "model": spec.tag,
        "prompt": "",
        "stream": True,
        "options": spec.load_options,
        "keep_alive": _KEEP_FOREVER,
        "shift": False,  # part of the loaded model, as all generations send it
    }


def unload(name: str) -> dict[str, Any]:
    """What a model is sent away with."""
    return {"model": name, "prompt": "", "stream": True, "keep_alive": _UNLOAD_NOW}
