"""Capabilities: whether a model can do what it is asked for, as far as the runtime has told."""

from __future__ import annotations

from collections.abc import Mapping

from mes.domain import InferenceRequest, ModelSpec, PulledModel
from mes.errors import Mistake, NotCapable

# As Ollama names them.
COMPLETION, EMBEDDING, TOOLS, VISION, THINKING = (
    "completion",
    "embedding",
    "tools",
    "vision",
    "thinking",
)

_REFUSALS = {
    COMPLETION: (
        "{id} makes embeddings and no text; send it to /v1/embeddings, or name another model"
    ),
    EMBEDDING: "{id} makes no embeddings; name a model with the capability embedding",
    TOOLS: "{id} cannot call tools; leave them out, or name a model with the capability tools",
    VISION: "{id} cannot see images; name a model with the capability vision",
    THINKING: "{id} cannot think; ask for no thinking, or name a model with that capability",
}


def required_capabilities(request: InferenceRequest) -> dict[str, str]:
    """What a model has to be able to do, and where the request says so."""
    shown = any(turn.images for turn in request.messages)
    wanted = {
        COMPLETION: ("/model_id", True),
        TOOLS: ("/tools", request.tools),
        VISION: ("/messages", shown),
        THINKING: ("/think", request.think),
    }
    return {capability: pointer for capability, (pointer, asked) in wanted.items() if asked}


def require_capability(
    capability: str, spec: ModelSpec, pulled: Mapping[str, PulledModel], *, pointer: str
) -> None:
    """Raises NotCapable, before another model is evicted for one that cannot do it anyway."""
    model = pulled.get(spec.tag)
    # An older runtime does not tell, and then has to be tried.
    told = model and model.capabilities
    if told and capability not in told:
        raise not_capable(capability, spec.id, pointer=pointer)


def not_capable(capability: str, model: str, *, pointer: str) -> NotCapable:
    """The refusal, in the same words whoever has found out."""
    detail = _REFUSALS[capability].format(id=model)
    return NotCapable(detail, mistakes=(Mistake(pointer, detail),))
