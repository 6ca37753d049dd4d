"""The responses of the runtime, parsed strictly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import orjson

from mes.domain import LoadedModel, ModelCard, PulledModel, normalise
from mes.errors import MesError, RuntimeReplyInvalid
from mes.ollama.slots import parse_slots

T = TypeVar("T")

_MAX_TEXT_CHARACTERS = 300


# The short requests.


def require_done(body: Iterable[bytes], *, error_class: type[MesError]) -> None:
    """Read the response to a load or an unload; raise `error_class` if it does not report done."""
    if not any(part.get("done") is True for part in parse_lines(body, error_class=error_class)):
        raise error_class("the runtime did not say that it was done")


def parse_version(body: bytes) -> str:
    """Return name and version; only the embedded runtime sends its name, Ollama does not."""
    document = parse_object(body)
    name = get_field(document, "runtime", str, "ollama")
    return f"{name} {get_field(document, 'version', str, 'unknown')}"


def parse_loaded(body: bytes) -> list[LoadedModel]:
    return [
        LoadedModel(
            name=normalise(get_field(model, "name", str, "")),
            digest=_digest(model),
            quantization=get_field(_details(model), "quantization_level", str, ""),
            size_bytes=require_count(model, "size"),
            vram_bytes=require_count(model, "size_vram"),
            context_length=require_count(model, "context_length") or None,
        )
        for model in _models(body)
    ]


def parse_pulled(body: bytes) -> list[PulledModel]:
    return [
        PulledModel(
            name=normalise(get_field(model, "name", str, "")),
            digest=_digest(model),
            size_bytes=require_count(model, "size"),
            quantization=get_field(_details(model), "quantization_level", str, ""),
            parameter_size=get_field(_details(model), "parameter_size", str, ""),
            slots=parse_slots(model, get_field(_details(model), "family", str, "")),
        )
        for model in _models(body)
    ]


def parse_card(body: bytes) -> ModelCard:
    document = parse_object(body)
    info: dict[str, Any] = get_field(document, "model_info", dict, {})
    architecture = get_field(info, "general.architecture", str, "")
    return ModelCard(
        quantization=get_field(_details(document), "quantization_level", str, ""),
        parameter_size=get_field(_details(document), "parameter_size", str, ""),
        context_length=require_count(info, f"{architecture}.context_length") or None,
        capabilities=tuple(str(name) for name in get_field(document, "capabilities", list, [])),
    )


def _models(body: bytes) -> list[dict[str, Any]]:
    return require_objects(parse_object(body), "models")


def _details(model: Mapping[str, Any]) -> dict[str, Any]:
    return get_field(model, "details", dict, {})


def _digest(model: Mapping[str, Any]) -> str:
    digest = get_field(model, "digest", str, "")
    return f"sha256:{digest.removeprefix('sha256:')}" if digest else ""


# Error texts.


def unwrap(value: Any) -> tuple[str, Mapping[str, Any]]:
    """Return the innermost text and the fields beside it.

    Errors of the runner are JSON documents inside a string.
    """
    facts: Mapping[str, Any] = {}
    for _ in range(4):
        if isinstance(value, dict):
            facts, value = value, value.get("error", value.get("message", ""))
        elif isinstance(value, str) and value.startswith("{"):
            try:
                value = orjson.loads(value)
            except orjson.JSONDecodeError:
                break
    return (value if isinstance(value, str) else ""), facts


def to_plain_text(text: str) -> str:
    """Return the text as one short printable line for an error detail; empty for an HTML page."""
    if text.lstrip().startswith("<"):
        return ""  # the page of a proxy
    start = text[: 4 * _MAX_TEXT_CHARACTERS]
    printable = "".join(letter if letter.isprintable() else " " for letter in start)
    return " ".join(printable.split())[:_MAX_TEXT_CHARACTERS]


# Lines of JSON.


def parse_lines(body: Iterable[bytes], *, error_class: type[MesError]) -> Iterator[dict[str, Any]]:
    """Yield the object on each line; raise `error_class` at a line that reports an error."""
    for lines in split_lines(body):
        for line in filter(None, lines):
            yield parse_line(line, error_class=error_class)


def parse_line(line: bytes, *, error_class: type[MesError]) -> dict[str, Any]:
    """Return the object on a line; raise `error_class` if it reports an error."""
    part = parse_object(line)
    if "error" in part:
        text, _ = unwrap(part)
        raise error_class(to_plain_text(text) or "the runtime broke off with an error")
    return part


def split_lines(body: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield the lines that end in each piece, in linear time even for pieces of one byte."""
    begun: list[bytes] = []
    for piece in body:
        *lines, rest = piece.split(b"\n")
        if begun and lines:
            lines[0] = b"".join((*begun, lines[0]))
            begun.clear()
        if rest:
            begun.append(rest)
        yield lines
    yield [b"".join(begun)]


def parse_object(text: bytes) -> dict[str, Any]:
    """Return the JSON object in the text. Raises RuntimeReplyInvalid."""
    try:
        # orjson refuses invalid UTF-8, lone surrogates and NaN, which the json module accepts.
        value = orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise RuntimeReplyInvalid("the runtime sent something that is not JSON") from exc
    if type(value) is not dict:
        raise RuntimeReplyInvalid("the runtime sent JSON that is not an object")
    return value


def require_count(part: Mapping[str, Any], name: str) -> int:
    """Return a non-negative integer; 0 if it is absent, as Ollama omits it then."""
    value = part.get(name, 0)
    if type(value) is not int or value < 0:
        raise RuntimeReplyInvalid(f"the runtime sent a {name} that is not a count")
    return value


def require_objects(part: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return a list of objects; an empty list if it is absent."""
    objects: list[dict[str, Any]] = get_field(part, name, list, [])
    if not all(isinstance(each, dict) for each in objects):
        raise RuntimeReplyInvalid(f"the runtime sent {name} that are not objects")
    return objects


def get_field(part: Mapping[str, Any], name: str, kind: type[T], default: T) -> T:
    """Return a field of this type; the default if it is absent or null."""
    value = part.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise RuntimeReplyInvalid(f"the runtime sent a {name} that is not a {kind.__name__}")
    return value
