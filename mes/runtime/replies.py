"""What the runtime's answers mean, read strictly."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson

from mes.domain import (
    LoadedModel,
    ModelCard,
    PulledModel,
    Reply,
    Tell,
    Usage,
    normalise,
    silent,
)
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
)
from mes.runtime.voices import Voices

T = TypeVar("T")

_LONGEST_TEXT = 300
_LONGEST_RETRY_SECONDS = 60
_CANNOT_THINK = "does not support thinking"
_CANNOT_SEE = ("image input is not supported", "does not support multimodal")
_DECODING_WORDS = ("grammar", "json schema", "json_schema", "sampler", "invalid format")


def generation(pieces: Iterable[bytes], *, sent: float, tell: Tell = silent) -> Reply:
    """One whole generation, told as it comes: what is in one piece of it at once.

    `sent` is when the question was asked, by the monotonic clock.
    """
    voices = Voices(tell)
    first = 0.0
    for lines in _lines(pieces):
        try:
            for part in _objects(lines, otherwise=GenerationAborted):
                if _hear(part, voices):
                    first = first or time.monotonic()
                if part.get("done") is True:
                    waited = (first or time.monotonic()) - sent
                    return _reply(voices, part, waited_ms=waited * 1000)
        finally:
            voices.tell()
    raise GenerationAborted("the generation ended without saying that it was done")


def _hear(part: Mapping[str, Any], voices: Voices) -> bool:
    """The next piece of reasoning and of the text, which a conversation has in a message."""
    said, name = part.get("message"), "content"
    if said is None:
        said, name = part, "response"
    elif type(said) is not dict:
        raise RuntimeReplyInvalid("the runtime sent a message that is not an object")
    thought, text = said.get("thinking", ""), said.get(name, "")
    if type(thought) is not str or type(text) is not str:
        raise RuntimeReplyInvalid(f"the runtime sent a {name} or thinking that is not text")
    if thought:
        voices.think(thought)
    if text:
        voices.hear(text)
    return bool(thought or text)


def _reply(voices: Voices, last: Mapping[str, Any], *, waited_ms: float) -> Reply:
    reason = last.get("done_reason")
    if reason not in ("stop", "length"):
        raise GenerationAborted(f"the generation ended for no proper reason ({plain(str(reason))})")
    reasoning, text = voices.end()
    return Reply(
        text=text,
        reasoning=reasoning,
        finish_reason=reason,
        usage=Usage(_count(last, "prompt_eval_count"), _count(last, "eval_count")),
        prompt_ms=_count(last, "prompt_eval_duration") / 1e6,
        generation_ms=_count(last, "eval_duration") / 1e6,
        time_to_first_token_ms=waited_ms,
    )


def done(chunks: Iterable[bytes], *, otherwise: type[MesError]) -> None:
    """Read until the runtime says that it is done, as after a load or an unload."""
    if not any(part.get("done") is True for part in parts(chunks, otherwise=otherwise)):
        raise otherwise("the runtime did not say that it was done")


def version(answer: bytes) -> str:
    """Our own embedded runtime says its name; Ollama does not."""
    said = _object(answer)
    return f"{_get(said, 'runtime', str, 'ollama')} {_get(said, 'version', str, 'unknown')}"


def loaded(answer: bytes) -> list[LoadedModel]:
    return [
        LoadedModel(
            name=normalise(_get(model, "name", str, "")),
            digest=_digest(model),
            quantization=_get(_details(model), "quantization_level", str, ""),
            size_bytes=_count(model, "size"),
            vram_bytes=_count(model, "size_vram"),
            context_length=_count(model, "context_length") or None,
        )
        for model in _models(answer)
    ]


def pulled(answer: bytes) -> list[PulledModel]:
    return [
        PulledModel(
            name=normalise(_get(model, "name", str, "")),
            digest=_digest(model),
            size_bytes=_count(model, "size"),
            quantization=_get(_details(model), "quantization_level", str, ""),
            parameter_size=_get(_details(model), "parameter_size", str, ""),
        )
        for model in _models(answer)
    ]


def card(answer: bytes) -> ModelCard:
    shown = _object(answer)
    info: dict[str, Any] = _get(shown, "model_info", dict, {})
    architecture = _get(info, "general.architecture", str, "")
    return ModelCard(
        quantization=_get(_details(shown), "quantization_level", str, ""),
        parameter_size=_get(_details(shown), "parameter_size", str, ""),
        context_length=_count(info, f"{architecture}.context_length") or None,
        capabilities=tuple(str(one) for one in _get(shown, "capabilities", list, [])),
    )


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer other than 200; `facts` is what the runtime's runner added to its text."""

    status: int
    text: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    retry_after: float | None = None


def refusal(status: int, *, body: bytes, retry_after: str | None) -> Refusal:
    """Read a refusal; what is not Ollama's `{"error": ...}` counts as having no text."""
    try:
        text, facts = _unwrap(orjson.loads(body))
    except orjson.JSONDecodeError:
        text, facts = "", {}
    seconds = None
    if retry_after is not None and retry_after.isascii() and retry_after.isdigit():
        seconds = float(min(max(int(retry_after[:9]), 1), _LONGEST_RETRY_SECONDS))
    return Refusal(status, plain(text), facts, seconds)


def refused_generation(no: Refusal, *, tag: str, with_schema: bool) -> MesError:
    text = no.text.lower()
    if no.facts.get("type") == "exceed_context_size_error":
        prompt, context = _count(no.facts, "n_prompt_tokens"), _count(no.facts, "n_ctx")
        return PromptTooLong(f"the prompt has {prompt} tokens, the model's context holds {context}")
    if "prompt is longer than the context length" in text:
        return PromptTooLong("the prompt is longer than the model's context")
    if _CANNOT_THINK in text:
        return _unable(f"{tag} cannot think; leave think out", "/think")
    if any(words in text for words in _CANNOT_SEE):
        return _unable(f"{tag} cannot see images; choose a model with vision", "/messages")
    if with_schema and no.status in (400, 500) and any(word in text for word in _DECODING_WORDS):
        return SchemaRefused(no.text)
    if no.status == 500 and no.text:
        return GenerationAborted(no.text)
    return refused(no, tag=tag)


def _unable(detail: str, pointer: str) -> MesError:
    return RequestInvalid(detail, mistakes=(Mistake(pointer, detail),))


def refused_load(no: Refusal, *, tag: str) -> MesError:
    if no.status in (400, 500) and no.text:
        return LoadFailed(no.text)
    return refused(no, tag=tag)


def refused(no: Refusal, *, tag: str) -> MesError:
    if no.status == 404 and no.text:
        return ModelNotPulled(f"the runtime does not have {tag}: run `ollama pull {tag}`")
    if no.status in (429, 503):
        return RuntimeUnavailable(no.text or "the runtime is busy", retry_after=no.retry_after)
    return RuntimeReplyInvalid(f"the runtime answered {no.status}: {no.text}".rstrip(": "))


def plain(text: str) -> str:
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


def parts(pieces: Iterable[bytes], *, otherwise: type[MesError]) -> Iterator[dict[str, Any]]:
    """The objects of a stream, up to a line that tells of an error."""
    for lines in _lines(pieces):
        yield from _objects(lines, otherwise=otherwise)


def _objects(lines: Iterable[bytes], *, otherwise: type[MesError]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if not line:
            continue
        part = _object(line)
        if "error" in part:
            text, _ = _unwrap(part)
            raise otherwise(plain(text) or "the runtime broke off with an error")
        yield part


def _lines(pieces: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The lines that end in each piece; in linear time even where every byte comes alone."""
    begun: list[bytes] = []
    for piece in pieces:
        *lines, rest = piece.split(b"\n")
        if lines:
            lines[0] = b"".join((*begun, lines[0]))
            begun = []
            yield lines
        begun.append(rest)
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
    models: list[dict[str, Any]] = _get(_object(answer), "models", list, [])
    if not all(isinstance(model, dict) for model in models):
        raise RuntimeReplyInvalid("the runtime lists models that are not objects")
    return models


def _details(model: Mapping[str, Any]) -> dict[str, Any]:
    return _get(model, "details", dict, {})


def _digest(model: Mapping[str, Any]) -> str:
    digest = _get(model, "digest", str, "")
    return f"sha256:{digest.removeprefix('sha256:')}" if digest else ""


def _count(part: Mapping[str, Any], name: str) -> int:
    """A number that is left out where it is 0."""
    value = part.get(name, 0)
    if type(value) is not int or value < 0:
        raise RuntimeReplyInvalid(f"the runtime sent a {name} that is not a count")
    return value


def _get(part: Mapping[str, Any], name: str, kind: type[T], default: T) -> T:
    value = part.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise RuntimeReplyInvalid(f"the runtime sent a {name} that is not a {kind.__name__}")
    return value
