"""Cards: what each model can do, which the runtime is asked once and beside the keeper's rounds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mes.domain import PulledModel, Runtime
from mes.errors import ModelNotPulled, RuntimeReplyInvalid


class Cards:
    """The capabilities of models, by name and digest."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._known: dict[tuple[str, str], tuple[str, ...]] = {}

    def complete(self, model: PulledModel, earlier: PulledModel | None) -> PulledModel:
        """The model with its capabilities: as asked for here, or by the keeper before us."""
        known = self._known.get((model.name, model.digest))
        if known is None and earlier is not None and earlier.digest == model.digest:
            known = earlier.capabilities
        return replace(model, capabilities=known)

    def ask(self, models: Iterable[PulledModel]) -> None:
        """Ask for those of these models, one after the other. Raises RuntimeUnavailable."""
        for model in models:
            self._known[model.name, model.digest] = self._capabilities(model.name)

    def _capabilities(self, name: str) -> tuple[str, ...]:
        try:
            return self._runtime.card(name).capabilities
        except (ModelNotPulled, RuntimeReplyInvalid):
            return ()  # as of a runtime too old to tell: it has to be tried
