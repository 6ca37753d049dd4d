"""Bodies: what the runtime is sent, in Ollama's words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import orjson
import requests
from urllib3.util import Url

from mes.domain import Message, ModelSpec, Prompt, ToolCall

# MES decides what stays in memory, not Ollama's timer.
_KEEP_FOREVER = -1
_UNLOAD_NOW = 0


def generation_payload(prompt: Prompt) -> dict[str, Any]:
    """What a text is asked for with."""
    body = {
        "model": prompt.spec.tag,
        **_prompt_fields(prompt),
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


def _prompt_fields(prompt: Prompt) -> dict[str, Any]:
    if prompt.messages:
        return {"messages": [_message_payload(message) for message in prompt.messages]}
    words = {"prompt": prompt.text}
    return words if prompt.system is None else {**words, "system": prompt.system}


def _message_payload(message: Message) -> dict[str, Any]:
    turn = {
        "role": message.role,
        "content": message.content,
        "images": message.images,
        "tool_calls": [_tool_call_payload(call) for call in message.tool_calls],
        "tool_call_id": message.tool_call_id,
        "tool_name": message.tool_name,
    }
    return {name: value for name, value in turn.items() if value or name == "content"}


def _tool_call_payload(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}}


def embedding_payload(
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


def load_payload(spec: ModelSpec) -> dict[str, Any]:
    """What a model is loaded with that writes text."""
    return {
        "model": spec.tag,
        "prompt": "",
        "stream": True,
        "options": spec.load_options,
        "keep_alive": _KEEP_FOREVER,
        "shift": False,  # part of the loaded model, as all generations send it
    }


def unload_payload(name: str) -> dict[str, Any]:
    """What a model is sent away with."""
    return {"model": name, "prompt": "", "stream": True, "keep_alive": _UNLOAD_NOW}


# Endpoints: requests prepared once for each path of the runtime, filled for each question.


def prepare_request(method: str, url: Url, path: str) -> requests.PreparedRequest:
    """All of a request but its body, prepared once because this costs more than sending it."""
    headers = {
        "User-Agent": "mes",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
    }
    whole = url._replace(path=(url.path or "").rstrip("/") + path).url
    return requests.Request(method, whole, headers=headers).prepare()


def with_body(template: requests.PreparedRequest, body: dict[str, Any]) -> requests.PreparedRequest:
    """Return a copy of the template that carries the body, encoded as JSON."""
    request = template.copy()
    request.prepare_body(_encoded(body), None)
    return request


def _encoded(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body, default=dict)
    except TypeError:
        # orjson knows no numbers beyond 64 bits, but a caller's schema may name one as a bound.
        return json.dumps(body, default=dict).encode()
