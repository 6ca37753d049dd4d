"""The responses of the runtime: strict parsing, and the errors that a refusal stands for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson

from mes.domain import LoadedModel, ModelCard, Prompt, PulledModel, normalise
from mes.domain.capabilities import COMPLETION, THINKING, TOOLS, VISION, not_capable
from mes.domain.inference_request import MODEL_POINTER, THINK_POINTER
from mes.errors import (
    GenerationAborted,
    LoadFailed,
    MesError,
    Mistake,
    ModelNotPulled,
    PromptTooLong,
    RequestInvalid,
    RuntimeReplyInvalid,
    RuntimeUnavailable,
    SchemaRefused,
    ThinkLevelRefused,
)
from mes.ollama.slots import parse_slots

T = TypeVar("T")

_MAX_TEXT_CHARACTERS = 300
_MAX_RETRY_SECONDS = 60

# Parts of Ollama's error texts, and the capability that the model lacks with the JSON pointer of
# the field that needs it.
_NO_COMPLETION = ("does not support generate", "does not support chat")
_MISSING_CAPABILITIES = {
    "does not support thinking": (THINKING, THINK_POINTER),
    "image input is not supported": (VISION, "/messages"),
    "does not support multimodal": (VISION, "/messages"),
    "does not support tools": (TOOLS, "/tools"),
    "tool calls are not supported": (TOOLS, "/messages"),
}
_THINKING = ("think", "reasoning")
_SCHEMA_REFUSED = ("grammar", "json schema", "json_schema", "sampler", "invalid format")
# Ollama answers this with 500 for some models.
_INVALID_IMAGE = "failed to load image"


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


# Refusals.


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """A response with a status other than 200.

    Args:
        text: the error text on one line; empty if the body is not one of Ollama's.
        facts: further fields of the innermost error, which the runner of the model adds.
        retry_after: seconds, of the header `Retry-After`.
    """

    status: int
    text: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    retry_after: float | None = None


def parse_error_response(status: int, *, body: bytes, retry_after: str | None) -> ErrorResponse:
    """Parse a refusal; a body that is not Ollama's `{"error": ...}` counts as empty."""
    try:
        text, facts = unwrap(orjson.loads(body))
    except orjson.JSONDecodeError:
        text, facts = "", {}
    seconds = None
    if retry_after is not None and retry_after.isascii() and retry_after.isdigit():
        seconds = float(min(max(int(retry_after[:9]), 1), _MAX_RETRY_SECONDS))
    return ErrorResponse(status, to_plain_text(text), facts, seconds)


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


def generation_error_from(refusal: ErrorResponse, prompt: Prompt) -> MesError:
    """Return the error of a refused generation."""
    tag, text = prompt.spec.tag, refusal.text.lower()
    if error := _prompt_too_long(refusal, prompt):
        return error
    if _lacks_completion(refusal):
        return not_capable(COMPLETION, tag, pointer=MODEL_POINTER)
    for words, (capability, pointer) in _MISSING_CAPABILITIES.items():
        if words in text:
            return not_capable(capability, tag, pointer=pointer)
    is_mistake = refusal.status in (400, 500)
    if prompt.format is not None and is_mistake and any(w in text for w in _SCHEMA_REFUSED):
        return SchemaRefused(refusal.text)
    if isinstance(prompt.think, str) and is_mistake and any(w in text for w in _THINKING):
        return ThinkLevelRefused(refusal.text)
    if refusal.text and (refusal.status in (400, 413) or _INVALID_IMAGE in text):
        return RequestInvalid(f"the runtime refuses the request: {refusal.text}")
    if refusal.status == 500 and refusal.text:
        return GenerationAborted(refusal.text)
    return error_from(refusal, tag=tag)


def _prompt_too_long(refusal: ErrorResponse, prompt: Prompt) -> MesError | None:
    pointer = "/messages" if prompt.messages else "/prompt"
    remedy = "shorten it, or raise context_window of the model in the catalog"
    if refusal.facts.get("type") == "exceed_context_size_error":
        tokens = require_count(refusal.facts, "n_prompt_tokens")
        context = require_count(refusal.facts, "n_ctx")
        problem = f"the prompt is too long: it has {tokens} tokens, but"
        return too_long(problem, context, remedy, pointer=pointer)
    if "prompt is longer than the context length" in refusal.text.lower():
        limit = prompt.options.get("num_ctx")
        return too_long("the prompt is too long:", limit, remedy, pointer=pointer)
    return None


def too_long(problem: str, context: int | None, rest: str, *, pointer: str) -> PromptTooLong:
    """Return the error of a prompt that exceeds the context, in the words that clients look for.

    Args:
        problem: the beginning of the detail, which the limit follows.
        context: the limit in tokens; None if it is not known.
        rest: the end of the detail.
        pointer: a JSON pointer to the field of the request.
    """
    limit = "this model's maximum context length is"
    limit += " exceeded" if context is None else f" {context} tokens"
    detail = f"{problem} {limit}; {rest}"
    return PromptTooLong(detail, mistakes=(Mistake(pointer, detail),))


def load_error_from(refusal: ErrorResponse, *, tag: str) -> MesError:
    """Return the error of a refused load."""
    if _lacks_completion(refusal):
        return not_capable(COMPLETION, tag, pointer=MODEL_POINTER)
    if refusal.status in (400, 500) and refusal.text:
        return LoadFailed(refusal.text)
    return error_from(refusal, tag=tag)


def error_from(refusal: ErrorResponse, *, tag: str) -> MesError:
    """Return the error of a refusal that any request may get."""
    if refusal.status == 404 and refusal.text:
        return ModelNotPulled(f"the runtime does not have {tag}: run `ollama pull {tag}`")
    if refusal.status in (429, 503):
        detail = refusal.text or "the runtime is busy"
        return RuntimeUnavailable(detail, retry_after=refusal.retry_after)
    return RuntimeReplyInvalid(
        f"the runtime answered {refusal.status}: {refusal.text}".rstrip(": ")
    )


def _lacks_completion(refusal: ErrorResponse) -> bool:
    return refusal.status == 400 and any(words in refusal.text for words in _NO_COMPLETION)


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
