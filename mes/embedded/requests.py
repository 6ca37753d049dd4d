"""What a client asks for, read from the JSON of Ollama's requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import keep_alive, names, options, schema
from .errors import BadRequest, ModelNotFound
from .options import Options

Body = dict[str, Any]
# What this runtime cannot do; left unsaid, the answer would pass for one that took it into account.
UNSUPPORTED = ("template", "context")
MOST_LOGPROBS = 20


@dataclass(frozen=True)
class Generation:
    """One text to be written: after a raw `prompt`, or as the next of `messages`"""

    model: str
    is_chat: bool
    prompt: str | None
    messages: list[dict[str, str]]
    format: schema.Schema | None
    options: Options
    keep_alive: float | None
    stream: bool
    top_logprobs: int | None
    """how many of the likeliest tokens to tell at each place; None for not even the chosen one"""

    @property
    def is_empty(self) -> bool:
        """Asks to load the model, or to unload it"""
        return not (self.prompt or self.messages)

    @property
    def is_unload(self) -> bool:
        return self.is_empty and self.keep_alive == 0


@dataclass(frozen=True)
class Embedding:
    model: str
    inputs: list[str]
    truncate: bool
    dimensions: int | None
    options: Options
    keep_alive: float | None


def parse_generate(body: Body) -> Generation:
    name = generate_name(body)
    _refuse_unsupported(body)
    text, system, raw = (_text(body, "prompt"), _text(body, "system"), bool(body.get("raw")))
    if raw and system:
        raise BadRequest("raw mode does not support template, system, or context")
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    spoken = bool(text) and not raw
    return _generation(
        body, name, is_chat=False, prompt=text if raw else None, messages=messages if spoken else []
    )


def parse_chat(body: Body) -> Generation:
    name = required_name(body)
    _refuse_unsupported(body)
    messages = [_message(item) for item in _list(body, "messages")]
    return _generation(body, name, is_chat=True, prompt=None, messages=messages)


def parse_embed(body: Body) -> Embedding:
    name = generate_name(body)
    given = body.get("input")
    inputs = [given] if isinstance(given, str) else given or []
    if not isinstance(inputs, list) or not all(isinstance(item, str) for item in inputs):
        raise BadRequest("invalid input type")
    return _embedding(body, name, [] if given == "" else inputs)


def parse_embeddings(body: Body) -> Embedding:
    """The older route: one `prompt`"""
    text = _text(body, "prompt")
    return _embedding(body, required_name(body), [text] if text else [])


def wants_stream(body: Body) -> bool:
    return bool(body.get("stream") is None or body["stream"])


def model_name(body: Body) -> str:
    """For the routes about a model rather than with one; some clients still say `name`"""
    return required_name({"model": body.get("model") or body.get("name")})


def _generation(body: Body, name: str, **rest: Any) -> Generation:
    return Generation(
        model=name,
        format=schema.parse(body.get("format")),
        options=options.parse(body.get("options")),
        keep_alive=keep_alive.parse(body.get("keep_alive")),
        stream=wants_stream(body),
        top_logprobs=_top_logprobs(body),
        **rest,
    )


def _embedding(body: Body, name: str, inputs: list[str]) -> Embedding:
    return Embedding(
        model=name,
        inputs=inputs,
        truncate=body.get("truncate") is not False,
        dimensions=body.get("dimensions") or None,
        options=options.parse(body.get("options")),
        keep_alive=keep_alive.parse(body.get("keep_alive")),
    )


def generate_name(body: Body) -> str:
    if not body.get("model"):
        raise ModelNotFound("model '' not found")
    return _text(body, "model")


def required_name(body: Body) -> str:
    if not body.get("model"):
        raise BadRequest("model is required")
    return _text(body, "model")


def _message(item: Any) -> dict[str, str]:
    if not isinstance(item, dict):
        raise _wrong_type(item, "messages", "api.Message")
    if item.get("images"):
        raise BadRequest("image input is not supported by the embedded runtime")
    if item.get("tool_calls"):
        raise BadRequest("tool calls are not supported by the embedded runtime")
    return {"role": _text(item, "role").lower(), "content": _text(item, "content")}


def _refuse_unsupported(body: Body) -> None:
    name = names.parse(body["model"])
    if body.get("think"):
        raise BadRequest(f'"{body["model"]}" does not support thinking')
    if body.get("tools"):
        raise BadRequest(f"{name.full} does not support tools")
    if body.get("suffix"):
        raise BadRequest(f"{name.full} does not support insert")
    if body.get("images"):
        raise BadRequest("image input is not supported by the embedded runtime")
    for field in UNSUPPORTED:
        if body.get(field):
            raise BadRequest(f"{field} is not supported by the embedded runtime")


def _top_logprobs(body: Body) -> int | None:
    most = body.get("top_logprobs") or 0
    if not isinstance(most, int) or not 0 <= most <= MOST_LOGPROBS:
        raise BadRequest(f"top_logprobs must be between 0 and {MOST_LOGPROBS}")
    return most if body.get("logprobs") else None


def _text(body: Body, field: str) -> str:
    value = body.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _wrong_type(value, field, "string")
    return value


def _list(body: Body, field: str) -> list[Any]:
    value = body.get(field)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _wrong_type(value, field, "[]api.Message")
    return value


def _wrong_type(value: Any, field: str, wanted: str) -> BadRequest:
    kind = {bool: "bool", str: "string", list: "array", dict: "object"}.get(type(value), "number")
    return BadRequest(
        f"json: cannot unmarshal {kind} into Go struct field {field} of type {wanted}"
    )
