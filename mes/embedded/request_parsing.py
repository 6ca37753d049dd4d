"""Parsing of request bodies: JSON to the dataclass of each kind of request."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from mes.embedded import durations, grammar, model_store, options
from mes.embedded.api_errors import BadRequest, UnknownModel
from mes.embedded.options import Options

Body = dict[str, Any]
# Refused, because an answer that ignores them would be wrong without notice.
UNSUPPORTED = ("template", "context")
MOST_LOGPROBS = 20


def _reject_constant(constant: str) -> None:
    raise ValueError(f"invalid character '{constant[0]}' looking for beginning of value")


# By default Python accepts NaN and Infinity, which are not JSON.
DECODER = json.JSONDecoder(parse_constant=_reject_constant)


@dataclass(frozen=True)
class GenerateRequest:
    """A request for one text: after a raw `prompt`, or as the next of `messages`."""

    model: str
    is_chat: bool
    prompt: str | None
    messages: list[dict[str, str]]
    format: grammar.Schema | None
    options: Options
    keep_alive: float | None
    stream: bool
    top_logprobs: int | None
    """Number of alternatives to report for each token; None for no log probabilities at all."""

    @property
    def is_empty(self) -> bool:
        """Whether the request only loads or unloads the model."""
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


@dataclass(frozen=True)
class DetokenizeRequest:
    """A request for the text of token ids."""

    model: str
    tokens: list[int]
    options: Options
    keep_alive: float | None


def parse_body(raw: bytes) -> Body:
    """Return the JSON object in `raw`; bytes after the object are ignored, as in Ollama.

    Raise `BadRequest` with the message of Ollama's JSON parser.
    """
    text = raw.decode("utf-8", "replace").lstrip()
    if not text:
        raise BadRequest("missing request body")
    try:
        value, _ = DECODER.raw_decode(text)
    except json.JSONDecodeError as exc:
        raise BadRequest(_go_syntax_error(exc)) from exc
    except (ValueError, RecursionError) as exc:
        raise BadRequest(f"json: {exc}") from exc
    if not isinstance(value, dict):
        raise BadRequest("json: cannot unmarshal into a request: an object is expected")
    return value


def parse_generate(body: Body) -> GenerateRequest:
    """Return the request of /api/generate. Raise `BadRequest` or `UnknownModel`."""
    name = model_or_404(body)
    _reject_unsupported(body)
    prompt, system = _text_field(body, "prompt"), _text_field(body, "system")
    if not body.get("raw"):
        messages = _conversation(prompt, system)
        return _generate_request(body, name, is_chat=False, prompt=None, messages=messages)
    if system:
        raise BadRequest("raw mode does not support template, system, or context")
    return _generate_request(body, name, is_chat=False, prompt=prompt, messages=[])


def parse_chat(body: Body) -> GenerateRequest:
    """Return the request of /api/chat. Raise `BadRequest`."""
    name = model_or_400(body)
    _reject_unsupported(body)
    messages = [_message(item) for item in _list_field(body, "messages")]
    return _generate_request(body, name, is_chat=True, prompt=None, messages=messages)


def parse_embed(body: Body) -> EmbedRequest:
    """Return the request of /api/embed. Raise `BadRequest` or `UnknownModel`."""
    name = model_or_404(body)
    value = body.get("input")
    inputs = [value] if isinstance(value, str) else value or []
    if not isinstance(inputs, list) or not all(isinstance(item, str) for item in inputs):
        raise BadRequest("invalid input type")
    return _embed_request(body, name, [] if value == "" else inputs)


def parse_embeddings(body: Body) -> EmbedRequest:
    """Return the request of the older route /api/embeddings, with one `prompt`."""
    text = _text_field(body, "prompt")
    return _embed_request(body, model_or_400(body), [text] if text else [])


def parse_detokenize(body: Body) -> DetokenizeRequest:
    """Return the request of /api/detokenize. Raise `BadRequest`."""
    tokens = body.get("tokens")
    if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
        raise BadRequest("tokens must be a list of whole numbers")
    return DetokenizeRequest(
        model=model_or_400(body),
        tokens=tokens,
        options=options.parse_options(body.get("options")),
        keep_alive=durations.parse_keep_alive(body.get("keep_alive")),
    )


def model_or_404(body: Body) -> str:
    """Return the model's name; a missing one is an unknown model, as in /api/generate."""
    if not body.get("model"):
        raise UnknownModel("model '' not found")
    return _text_field(body, "model")


def model_or_400(body: Body) -> str:
    """Return the model's name; a missing one is a bad request, as in /api/chat."""
    if not body.get("model"):
        raise BadRequest("model is required")
    return _text_field(body, "model")


def model_or_name(body: Body) -> str:
    """Return the model's name of a route that manages models; older clients send it as `name`."""
    return model_or_400({"model": body.get("model") or body.get("name")})


def wants_stream(body: Body) -> bool:
    return bool(body.get("stream") is None or body["stream"])


def _generate_request(body: Body, name: str, **fields: Any) -> GenerateRequest:
    return GenerateRequest(
        model=name,
        format=grammar.parse_format(body.get("format")),
        options=options.parse_options(body.get("options")),
        keep_alive=durations.parse_keep_alive(body.get("keep_alive")),
        stream=wants_stream(body),
        top_logprobs=_top_logprobs(body),
        **fields,
    )


def _embed_request(body: Body, name: str, inputs: list[str]) -> EmbedRequest:
    return EmbedRequest(
        model=name,
        inputs=inputs,
        truncate=body.get("truncate") is not False,
        dimensions=body.get("dimensions") or None,
        options=options.parse_options(body.get("options")),
        keep_alive=durations.parse_keep_alive(body.get("keep_alive")),
    )


def _conversation(prompt: str, system: str) -> list[dict[str, str]]:
    """Return the messages for a prompt; none for an empty one, which only loads the model."""
    if not prompt:
        return []
    instructions = [{"role": "system", "content": system}] if system else []
    return [*instructions, {"role": "user", "content": prompt}]


def _message(item: Any) -> dict[str, str]:
    if not isinstance(item, dict):
        raise _go_type_error(item, "messages", "api.Message")
    if item.get("images"):
        raise BadRequest("image input is not supported by the embedded runtime")
    if item.get("tool_calls"):
        raise BadRequest("tool calls are not supported by the embedded runtime")
    return {"role": _text_field(item, "role").lower(), "content": _text_field(item, "content")}


def _reject_unsupported(body: Body) -> None:
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
    count = body.get("top_logprobs") or 0
    if not isinstance(count, int) or not 0 <= count <= MOST_LOGPROBS:
        raise BadRequest(f"top_logprobs must be between 0 and {MOST_LOGPROBS}")
    return count if body.get("logprobs") else None


def _text_field(body: Body, field: str) -> str:
    value = body.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _go_type_error(value, field, "string")
    return value


def _list_field(body: Body, field: str) -> list[Any]:
    value = body.get(field)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _go_type_error(value, field, "[]api.Message")
    return value


def _go_syntax_error(exc: json.JSONDecodeError) -> str:
    character = exc.doc[exc.pos : exc.pos + 1]
    if not character:
        return "unexpected EOF"
    expected = "object key string" if "property name" in exc.msg else "value"
    return f"invalid character '{character}' looking for beginning of {expected}"


def _go_type_error(value: Any, field: str, expected: str) -> BadRequest:
    kind = {bool: "bool", str: "string", list: "array", dict: "object"}.get(type(value), "number")
    return BadRequest(
        f"json: cannot unmarshal {kind} into Go struct field {field} of type {expected}"
    )
