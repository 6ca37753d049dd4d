"""Capabilities: whether a model can do what it is asked for, as far as the runtime has told."""

from __future__ import annotations

from collections.abc import Mapping

from mes.domain import ModelSpec, PulledModel
from mes.errors import Mistake, NotCapable

WRITES, EMBEDS = "completion", "embedding"

_REFUSALS = {
    WRITES: "{id} makes embeddings and no text; send it to /v1/embeddings, or name another model",
    EMBEDS: "{id} makes no embeddings; name a model with the capability embedding",
}


def require(
    capability: str, spec: ModelSpec, pulled: Mapping[str, PulledModel], *, pointer: str
) -> None:
    """Raises NotCapable, before another model is evicted for one that cannot do it anyway."""
    model = pulled.get(spec.tag)
    # An older runtime does not tell, and then has to be tried.
    told = model and model.capabilities
    if told and capability not in told:
        detail = _REFUSALS[capability].format(id=spec.id)
        raise NotCapable(detail, mistakes=(Mistake(pointer, detail),))
