"""Capabilities: whether a model can do what it is asked for, as far as the runtime has told."""

from __future__ import annotations

from collections.abc import Mapping

from mes.domain import InferenceRequest, ModelSpec, PulledModel
from mes.errors import Mistake, NotCapable

# As Ollama names them.
WRITES, EMBEDS, CALLS, SEES, THINKS = "completion", "embedding", "tools", "vision", "thinking"

_REFUSALS = {
    WRITES: "{id} makes embeddings and no text; send it to /v1/embeddings, or name another model",
    EMBEDS: "{id} makes no embeddings; name a model with the capability embedding",
    CALLS: "{id} cannot call tools; leave them out, or name a model with the capability tools",
    SEES: "{id} cannot see images; name a model with the capability vision",
    THINKS: "{id} cannot think; ask for no thinking, or name a model with that capability",
}


def needs(request: InferenceRequest) -> dict[str, str]:
    """What a model has to be able to do, and where the request says so."""
    shown = any(turn.images for turn in request.messages)
    wanted = {
        WRITES: ("/model_id", True),
        CALLS: ("/tools", request.tools),
        SEES: ("/messages", shown),
        THINKS: ("/think", request.think),
    }
    return {capability: pointer for capability, (pointer, asked) in wanted.items() if asked}


def require(
    capability: str, spec: ModelSpec, pulled: Mapping[str, PulledModel], *, pointer: str
) -> None:
    """Raises NotCapable, before another model is evicted for one that cannot do it anyway."""
    model = pulled.get(spec.tag)
    # An older runtime does not tell, and then has to be tried.
    told = model and model.capabilities
    if told and capability not in told:
        raise unable(capability, spec.id, pointer=pointer)


def unable(capability: str, model: str, *, pointer: str) -> NotCapable:
    """The refusal, in the same words whoever has found out."""
    detail = _REFUSALS[capability].format(id=model)
    return NotCapable(detail, mistakes=(Mistake(pointer, detail),))
