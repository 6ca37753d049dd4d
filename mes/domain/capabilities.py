"""Capabilities: the check that a model can do all that a request needs."""

from __future__ import annotations

from collections.abc import Mapping

from mes.domain import InferenceRequest, ModelSpec, PulledModel
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


def required_capabilities(request: InferenceRequest) -> dict[str, str]:
    """Return the capabilities that the request needs, each with a JSON pointer to the field.

    Every inference needs `completion`.
    """
    has_images = any(message.images for message in request.messages)
    candidates = {
        COMPLETION: ("/model_id", True),
        TOOLS: ("/tools", request.tools),
        VISION: ("/messages", has_images),
        THINKING: ("/think", request.think),
    }
    return {capability: pointer for capability, (pointer, needed) in candidates.items() if needed}


def require_capability(
    capability: str, spec: ModelSpec, pulled: Mapping[str, PulledModel], *, pointer: str
) -> None:
    """Check that the model has the capability.

    The check precedes the queue, so that no model is evicted for one that cannot serve the request.
    An older runtime does not list capabilities; the request is then tried.

    Args:
        pulled: the models on the runtime's disk, by tag.
        pointer: a JSON pointer to the field of the request that needs the capability.

    Raises:
        NotCapable: the runtime lists the model's capabilities, and this one is not among them.
    """
    model = pulled.get(spec.tag)
    known = model.capabilities if model is not None else None
    if known and capability not in known:
        raise not_capable(capability, spec.id, pointer=pointer)


def not_capable(capability: str, model: str, *, pointer: str) -> NotCapable:
    """Return the error for a missing capability, whether MES or the runtime noticed it."""
    detail = _DETAILS[capability].format(id=model)
    return NotCapable(detail, mistakes=(Mistake(pointer, detail),))
