"""Capabilities of models: their names, and the error for a missing one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mes.errors import Mistake, NotCapable

# The names that Ollama uses, and `tokenize` of the embedded runtime: it converts token ids to text.
COMPLETION, EMBEDDING, TOOLS, VISION, THINKING, TOKENIZE = (
    "completion",
    "embedding",
    "tools",
    "vision",
    "thinking",
    "tokenize",
)

_DETAILS = {
    COMPLETION: (
        "{id} makes embeddings and no text; send it to /v1/embeddings, or name another model"
    ),
    EMBEDDING: "{id} makes no embeddings; name a model with the capability embedding",
    TOOLS: "{id} cannot call tools; leave them out, or name a model with the capability tools",
    VISION: "{id} cannot see images; name a model with the capability vision",
    THINKING: (
        "{id} cannot think; set {field} to {off}, or name a model with the capability thinking"
    ),
    TOKENIZE: (
        "the runtime of {id} cannot read token ids; send the prompt as text, or name a model with "
        "the capability tokenize"
    ),
}


def not_capable(capability: str, model: str, *, pointer: str) -> NotCapable:
    """Return the error for a missing capability, whether MES or the runtime noticed it.

    `pointer` is a JSON pointer to the field of the request that needs the capability.
    """
    field = pointer.removeprefix("/").replace("/", ".")
    off = "none" if field.endswith("effort") else "false"
    detail = _DETAILS[capability].format(id=model, field=field, off=off)
    error = NotCapable(detail, mistakes=(Mistake(pointer, detail),))
    error.capability = capability
    return error


@contextmanager
def naming_fields(model: str, pointers: Mapping[str, str]) -> Iterator[None]:
    """Raise the runtime's NotCapable with the model and the field as the client wrote them.

    `pointers` has the JSON pointers to the fields by capability; others stay as they are.
    """
    try:
        yield
    except NotCapable as exc:
        pointer = pointers.get(exc.capability, exc.mistakes[0].pointer)
        raise not_capable(exc.capability, model, pointer=pointer) from exc
