"""Capabilities of models: their names, and the error for a missing one."""

from __future__ import annotations

from mes.errors import Mistake, NotCapable

# The names that Ollama uses.
COMPLETION, EMBEDDING, TOOLS, VISION, THINKING = (
    "completion",
    "embedding",
    "tools",
    "vision",
    "thinking",
)

_DETAILS = {
    COMPLETION: (
        "{id} makes embeddings and no text; send it to /v1/embeddings, or name another model"
    ),
    EMBEDDING: "{id} makes no embeddings; name a model with the capability embedding",
    TOOLS: "{id} cannot call tools; leave them out, or name a model with the capability tools",
    VISION: "{id} cannot see images; name a model with the capability vision",
    THINKING: "{id} cannot think; set think to false, or name a model with the capability thinking",
}


def not_capable(capability: str, model: str, *, pointer: str) -> NotCapable:
    """Return the error for a missing capability, whether MES or the runtime noticed it."""
    detail = _DETAILS[capability].format(id=model)
    return NotCapable(detail, mistakes=(Mistake(pointer, detail),))
