"""Deletion of models on the runtime's disk, without disturbing requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mes.domain import Client, ModelSpec, Runtime
from mes.errors import ModelBusy
from mes.scheduling.coordinator import Coordinator
from mes.scheduling.registry import LoadFailure
from mes.scheduling.scheduler import Scheduler

# If the worker is killed meanwhile, loads of the model are possible again after this time.
_LONGEST_SECONDS = 120.0


class ModelDeleter:
    """Deletes models that no request uses.

    Args:
        coordinator: Changes the shared state.
        scheduler: Unloads a model before it is deleted: afterwards Ollama does not know it by its
            name any more, and it would stay in memory.
        runtime: The runtime.
    """

    def __init__(self, *, coordinator: Coordinator, scheduler: Scheduler, runtime: Runtime) -> None:
        self._coordinator = coordinator
        self._scheduler = scheduler
        self._runtime = runtime

    def delete(self, spec: ModelSpec, client: Client) -> None:
        """Unload the model and delete it from the runtime's disk.

        Raises:
            ModelBusy: requests use the model or wait for it, or others delete it.
            ModelNotPulled: the model is not on the runtime's disk.
            RuntimeUnavailable, RuntimeReplyInvalid: the model could not be unloaded or deleted.
        """
        with self._without_loads(spec):
            self._scheduler.unload(spec, client)
            self._runtime.delete(spec.tag)

    @contextmanager
    def _without_loads(self, spec: ModelSpec) -> Iterator[None]:
        """Let no request load the model during the block: each is refused, as in a cooldown."""
        reason = f"{spec.id} is being deleted; pull it to use it again"
        with self._coordinator.transaction() as transaction:
            state = transaction.state
            earlier = state.load_failures.get(spec.tag)
            if earlier is not None and earlier.detail == reason and earlier.until > transaction.now:
                raise ModelBusy(reason)
            if requests := state.requests(spec.tag):
                raise ModelBusy(
                    f"{spec.id} is in use; try again when its requests ({requests}) have ended"
                )
            until = transaction.now + _LONGEST_SECONDS
            state.load_failures[spec.tag] = LoadFailure(1, until, reason)
        try:
            yield
        finally:
            with self._coordinator.transaction() as transaction:
                transaction.state.load_failures.pop(spec.tag, None)
                if earlier is not None:
                    transaction.state.load_failures[spec.tag] = earlier
