"""What the runtime's answers mean, read strictly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson

from mes.domain import (
    LoadedModel,
    ModelCard,
    PulledModel,
    normalise,
)
from mes.domain.capabilities import COMPLETION, THINKING, TOOLS, VISION, not_capable
from mes.errors import (
    GenerationAborted,
    LoadFailed,
    MesError,
    ModelNotPulled,
    PromptTooLong,
    RuntimeReplyInvalid,
    RuntimeUnavailable,
    SchemaRefused,
)

T = TypeVar("T")

_LONGEST_TEXT = 300
_LONGEST_RETRY_SECONDS = 60
_CANNOT_WRITE = ("does not support generate", "does not support chat")
_UNABLE = {
    "does not support thinking": (THINKING, "/think"),
    "image input is not supported": (VISION, "/messages"),
    "does not support multimodal": (VISION, "/messages"),
    "does not support tools": (TOOLS, "/tools"),
    "tool calls are not supported": (TOOLS, "/messages"),
}
_DECODING_WORDS = ("grammar", "json schema", "json_schema", "sampler", "invalid format")


def require_done(chunks: Iterable[bytes], *, otherwise: type[MesError]) -> None:
    """Read until the runtime says that it is done, as after a load or an unload."""
    if not any(part.get("done") is True for part in parse_parts(chunks, otherwise=otherwise)):
        raise otherwise("the runtime did not say that it was done")


def parse_version(answer: bytes) -> str:
    """Our own embedded runtime says its name; Ollama does not."""
    said = _object(answer)
    return (
        f"{get_field(said, 'runtime', str, 'ollama')} {get_field(said, 'version', str, 'unknown')}"
    )


def parse_loaded(answer: bytes) -> list[LoadedModel]:
    return [
        LoadedModel(
            name=normalise(get_field(model, "name", str, "")),
            digest=_digest(model),
            quantization=get_field(_details(model), "quantization_level", str, ""),
            size_bytes=require_count(model, "size"),
            vram_bytes=require_count(model, "size_vram"),
            context_length=require_count(model, "context_length") or None,
        )
        for model in _models(answer)
    ]


def parse_pulled(answer: bytes) -> list[PulledModel]:
    return [
        PulledModel(
            name=normalise(get_field(model, "name", str, "")),
            digest=_digest(model),
            size_bytes=require_count(model, "size"),
            quantization=get_field(_details(model), "quantization_level", str, ""),
            parameter_size=get_field(_details(model), "parameter_size", str, ""),
        )
        for model in _models(answer)
    ]


def parse_card(answer: bytes) -> ModelCard:
    shown = _object(answer)
    info: dict[str, Any] = get_field(shown, "model_info", dict, {})
    architecture = get_field(info, "general.architecture", str, "")
    return ModelCard(
        quantization=get_field(_details(shown), "quantization_level", str, ""),
        parameter_size=get_field(_details(shown), "parameter_size", str, ""),
        context_length=require_count(info, f"{architecture}.context_length") or None,
        capabilities=tuple(str(one) for one in get_field(shown, "capabilities", list, [])),
    )


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """An answer other than 200; `facts` is what the runtime's runner added to its text."""

    status: int
    text: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    retry_after: float | None = None


def parse_error_response(status: int, *, body: bytes, retry_after: str | None) -> ErrorResponse:
    """Read a refusal; what is not Ollama's `{"error": ...}` counts as having no text."""
    try:
        text, facts = _unwrap(orjson.loads(body))
    except orjson.JSONDecodeError:
        text, facts = "", {}
    seconds = None
    if retry_after is not None and retry_after.isascii() and retry_after.isdigit():
        seconds = float(min(max(int(retry_after[:9]), 1), _LONGEST_RETRY_SECONDS))
    return ErrorResponse(status, plain_text(text), facts, seconds)


def generation_error_from(no: ErrorResponse, *, tag: str, with_schema: bool) -> MesError:
    text = no.text.lower()
    if no.facts.get("type") == "exceed_context_size_error":
        prompt, context = (
            require_count(no.facts, "n_prompt_tokens"),
            require_count(no.facts, "n_ctx"),
        )
        return PromptTooLong(f"the prompt has {prompt} tokens, the model's context holds {context}")
    if "prompt is longer than the context length" in text:
        return PromptTooLong("the prompt is longer than the model's context")
    if _cannot_write(no):
        return _no_writer(tag)
    for words, (capability, pointer) in _UNABLE.items():
        if words in text:
            return not_capable(capability, tag, pointer=pointer)
    if with_schema and no.status in (400, 500) and any(word in text for word in _DECODING_WORDS):
        return SchemaRefused(no.text)
    if no.status == 500 and no.text:
        return GenerationAborted(no.text)
    return error_from(no, tag=tag)


def _cannot_write(no: ErrorResponse) -> bool:
    return no.status == 400 and any(words in no.text for words in _CANNOT_WRITE)


def _no_writer(tag: str) -> MesError:
    return not_capable(COMPLETION, tag, pointer="/model_id")


def load_error_from(no: ErrorResponse, *, tag: str) -> MesError:
    if _cannot_write(no):
        return _no_writer(tag)
    if no.status in (400, 500) and no.text:
        return LoadFailed(no.text)
    return error_from(no, tag=tag)


def error_from(no: ErrorResponse, *, tag: str) -> MesError:
    if no.status == 404 and no.text:
        return ModelNotPulled(f"the runtime does not have {tag}: run `ollama pull {tag}`")
    if no.status in (429, 503):
        return RuntimeUnavailable(no.text or "the runtime is busy", retry_after=no.retry_after)
    return RuntimeReplyInvalid(f"the runtime answered {no.status}: {no.text}".rstrip(": "))


def plain_text(text: str) -> str:
    """Somebody else's words in one short line, fit for a problem's detail."""
    if text.lstrip().startswith("<"):
        return ""  # a page of some proxy's, not Ollama's words
    start = text[: 4 * _LONGEST_TEXT]
    printable = "".join(letter if letter.isprintable() else " " for letter in start)
    return " ".join(printable.split())[:_LONGEST_TEXT]


def _unwrap(said: Any) -> tuple[str, Mapping[str, Any]]:
    """The innermost text: the runner's errors come as a JSON document inside a string."""
    facts: Mapping[str, Any] = {}
    for _ in range(4):
        if isinstance(said, dict):
            facts, said = said, said.get("error", said.get("message", ""))
        elif isinstance(said, str) and said.startswith("{"):
            try:
                said = orjson.loads(said)
            except orjson.JSONDecodeError:
                break
    return (said if isinstance(said, str) else ""), facts


def parse_parts(pieces: Iterable[bytes], *, otherwise: type[MesError]) -> Iterator[dict[str, Any]]:
    """The objects of a stream, up to a line that tells of an error."""
    for lines in split_lines(pieces):
        for line in filter(None, lines):
            yield parse_part(line, otherwise=otherwise)


def parse_part(line: bytes, *, otherwise: type[MesError]) -> dict[str, Any]:
    """The object in a line, unless it tells of an error."""
    part = _object(line)
    if "error" in part:
        text, _ = _unwrap(part)
        raise otherwise(plain_text(text) or "the runtime broke off with an error")
    return part


def split_lines(pieces: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The lines that end in each piece; in linear time even where every byte comes alone."""
    begun: list[bytes] = []
    for piece in pieces:
        *lines, rest = piece.split(b"\n")
        if begun and lines:
            lines[0] = b"".join((*begun, lines[0]))
            begun.clear()
        if rest:
            begun.append(rest)
        yield lines
    yield [b"".join(begun)]


def _object(text: bytes) -> dict[str, Any]:
    try:
        # Strict about UTF-8, lone surrogates and NaN, all of which json lets pass.
        found = orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise RuntimeReplyInvalid("the runtime sent something that is not JSON") from exc
    if type(found) is not dict:
        raise RuntimeReplyInvalid("the runtime sent JSON that is not an object")
    return found


def _models(answer: bytes) -> list[dict[str, Any]]:
    return require_objects(_object(answer), "models")


def _details(model: Mapping[str, Any]) -> dict[str, Any]:
    return get_field(model, "details", dict, {})


def _digest(model: Mapping[str, Any]) -> str:
    digest = get_field(model, "digest", str, "")
    return f"sha256:{digest.removeprefix('sha256:')}" if digest else ""


def require_count(part: Mapping[str, Any], name: str) -> int:
    """A number that is left out where it is 0."""
    value = part.get(name, 0)
    if type(value) is not int or value < 0:
        raise RuntimeReplyInvalid(f"the runtime sent a {name} that is not a count")
    return value


def require_objects(part: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """A list of objects, which is left out where it is empty."""
    found: list[dict[str, Any]] = get_field(part, name, list, [])
    if not all(isinstance(each, dict) for each in found):
        raise RuntimeReplyInvalid(f"the runtime sent {name} that are not objects")
    return found


def get_field(part: Mapping[str, Any], name: str, kind: type[T], default: T) -> T:
    """A member of that kind; the default where it is left out or null."""
    value = part.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise RuntimeReplyInvalid(f"the runtime sent a {name} that is not a {kind.__name__}")
    return value
