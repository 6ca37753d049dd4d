"""Requests: the JSON body as it is read, and the fields of each kind of request."""

from __future__ import annotations

import json
from dataclasses import dataclass
from email.message import Message
from io import BufferedIOBase
from typing import Any

from mes.embedded import durations, grammar, model_store, options
from mes.embedded.api_errors import BadRequest, TooLarge, UnknownModel
from mes.embedded.options import Options

# The JSON body of a request.

LARGEST = 64 << 20


def _refuse(constant: str) -> None:
    raise ValueError(f"invalid character '{constant[0]}' looking for beginning of value")


# Python would take NaN and Infinity, which are no JSON.
DECODER = json.JSONDecoder(parse_constant=_refuse)


def read_body(headers: Message, file: BufferedIOBase) -> bytes:
    """All of it, so that the next request on the connection is found; TooLarge"""
    if "chunked" in headers.get("Transfer-Encoding", "").lower():
        return _read_chunks(file)
    length = headers.get("Content-Length") or "0"
    if not length.isdecimal():
        raise BadRequest("invalid Content-Length")
    return file.read(_bounded(int(length)))


def parse_body(raw: bytes) -> dict[str, Any]:
    """The object in it; BadRequest in Ollama's words. What follows the object is ignored"""
    text = raw.decode("utf-8", "replace").lstrip()
    if not text:
        raise BadRequest("missing request body")
    try:
        value, _ = DECODER.raw_decode(text)
    except json.JSONDecodeError as exc:
        raise BadRequest(_as_go_says_it(exc)) from exc
    except (ValueError, RecursionError) as exc:
        raise BadRequest(f"json: {exc}") from exc
    if not isinstance(value, dict):
        raise BadRequest("json: cannot unmarshal into a request: an object is expected")
    return value


def _read_chunks(file: BufferedIOBase) -> bytes:
    body = b""
    while size := _chunk_size(file.readline(64)):
        body += file.read(_bounded(size, len(body)))
        file.readline(64)
    while file.readline(1024).strip():
        pass  # trailers
    return body


def _chunk_size(line: bytes) -> int:
    try:
        return int(line.split(b";")[0], 16)
    except ValueError as exc:
        raise BadRequest("invalid chunk") from exc


def _bounded(size: int, read: int = 0) -> int:
    if size + read > LARGEST:
        raise TooLarge("http: request body too large")
    return size


def _as_go_says_it(exc: json.JSONDecodeError) -> str:
    rest = exc.doc[exc.pos : exc.pos + 1]
    if not rest:
        return "unexpected EOF"
    wanted = "object key string" if "property name" in exc.msg else "value"
    return f"invalid character '{rest}' looking for beginning of {wanted}"


# What a client asks for, read from the JSON of Ollama's requests.

Body = dict[str, Any]
# What this runtime cannot do; left unsaid, the answer would pass for one that took it into account.
UNSUPPORTED = ("template", "context")
MOST_LOGPROBS = 20


@dataclass(frozen=True)
class GenerateRequest:
    """One text to be written: after a raw `prompt`, or as the next of `messages`"""

    model: str
    is_chat: bool
    prompt: str | None
    messages: list[dict[str, str]]
    format: grammar.Schema | None
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
class EmbedRequest:
    model: str
    inputs: list[str]
    truncate: bool
    dimensions: int | None
    options: Options
    keep_alive: float | None


def parse_generate(body: Body) -> GenerateRequest:
    name = generate_name(body)
    _refuse_unsupported(body)
    text, system, raw = (
        _text_field(body, "prompt"),
        _text_field(body, "system"),
        bool(body.get("raw")),
    )
    if raw and system:
        raise BadRequest("raw mode does not support template, system, or context")
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    spoken = bool(text) and not raw
    return _generation(
        body, name, is_chat=False, prompt=text if raw else None, messages=messages if spoken else []
    )


def parse_chat(body: Body) -> GenerateRequest:
    name = required_name(body)
    _refuse_unsupported(body)
    messages = [_message(item) for item in _list_field(body, "messages")]
    return _generation(body, name, is_chat=True, prompt=None, messages=messages)


def parse_embed(body: Body) -> EmbedRequest:
    name = generate_name(body)
    given = body.get("input")
    inputs = [given] if isinstance(given, str) else given or []
    if not isinstance(inputs, list) or not all(isinstance(item, str) for item in inputs):
        raise BadRequest("invalid input type")
    return _embedding(body, name, [] if given == "" else inputs)


def parse_embeddings(body: Body) -> EmbedRequest:
    """The older route: one `prompt`"""
    text = _text_field(body, "prompt")
    return _embedding(body, required_name(body), [text] if text else [])


def wants_stream(body: Body) -> bool:
    return bool(body.get("stream") is None or body["stream"])


def model_name(body: Body) -> str:
    """For the routes about a model rather than with one; some clients still say `name`"""
    return required_name({"model": body.get("model") or body.get("name")})


def _generation(body: Body, name: str, **rest: Any) -> GenerateRequest:
    return GenerateRequest(
        model=name,
        format=grammar.parse_format(body.get("format")),
        options=options.parse_options(body.get("options")),
        keep_alive=durations.parse_keep_alive(body.get("keep_alive")),
        stream=wants_stream(body),
        top_logprobs=_top_logprobs(body),
        **rest,
    )


def _embedding(body: Body, name: str, inputs: list[str]) -> EmbedRequest:
    return EmbedRequest(
        model=name,
        inputs=inputs,
        truncate=body.get("truncate") is not False,
        dimensions=body.get("dimensions") or None,
        options=options.parse_options(body.get("options")),
        keep_alive=durations.parse_keep_alive(body.get("keep_alive")),
    )


def generate_name(body: Body) -> str:
    if not body.get("model"):
        raise UnknownModel("model '' not found")
    return _text_field(body, "model")


def required_name(body: Body) -> str:
    if not body.get("model"):
        raise BadRequest("model is required")
    return _text_field(body, "model")


def _message(item: Any) -> dict[str, str]:
    if not isinstance(item, dict):
        raise _wrong_type(item, "messages", "api.Message")
    if item.get("images"):
        raise BadRequest("image input is not supported by the embedded runtime")
    if item.get("tool_calls"):
        raise BadRequest("tool calls are not supported by the embedded runtime")
    return {"role": _text_field(item, "role").lower(), "content": _text_field(item, "content")}


def _refuse_unsupported(body: Body) -> None:
    name = model_store.parse_name(body["model"])
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


def _text_field(body: Body, field: str) -> str:
    value = body.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _wrong_type(value, field, "string")
    return value


def _list_field(body: Body, field: str) -> list[Any]:
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
