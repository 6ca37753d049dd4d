"""The version of a model that has answered: another one may have got its name meanwhile."""

from __future__ import annotations

from dataclasses import replace

from mes.domain import LoadedModel, ModelSpec, Runtime
from mes.errors import MesError
from mes.scheduling.coordinator import Coordinator, Transaction
from mes.scheduling.model_loader import resident_fields
from mes.scheduling.registry_correction import update_replaced
from mes.scheduling.runner_names import RunnerNames
from mes.scheduling.runtime_status import RuntimeStatusFile
from mes.scheduling.scheduler import GrantedPermit
from mes.scheduling.stuck_correction import correct_names

_UNKNOWN = (
    "model_digest is null: {model} got another version while this request ran, and it is not known "
    "which of the two has answered"
)


class AnswerVersions:
    """Finds out which version of a model has answered a request.

    The runtime looks the name up for each generation. After an update, the first generation loads
    the new version, which its own load time shows; later ones begin when this is known.

    Args:
        runtime: The runtime.
        coordinator: Changes the shared state.
        runtime_status: The status of the runtime, with the models on its disk.
    """

    def __init__(
        self, runtime: Runtime, coordinator: Coordinator, runtime_status: RuntimeStatusFile
    ) -> None:
        self._runtime = runtime
        self._coordinator = coordinator
        self._runtime_status = runtime_status

    def confirm(self, permit: GrantedPermit, spec: ModelSpec, *, loaded: bool) -> GrantedPermit:
        """Return the permit with the version that has answered, or with none and a warning.

        Call it before the permit is given back: a request that is granted later is then sure to
        have the right version.

        Args:
            loaded: Whether the runtime has loaded the model for a generation of this request.
        """
        if loaded:
            return self._after_load(permit, spec)
        status = self._runtime_status.current()
        pulled = status.pulled.get(spec.tag)
        # An older list may be from before the update that the permit takes into account.
        is_newer = status.pulled_at > permit.granted_at
        if pulled is None or permit.digest in (None, pulled.digest) or not is_newer:
            return permit
        return _without_version(permit, spec)

    def _after_load(self, permit: GrantedPermit, spec: ModelSpec) -> GrantedPermit:
        """Ask the runtime which version it has loaded, and correct the registry at once."""
        try:
            runner = self._loaded_runner(permit, spec)
        except MesError:
            runner = None
        if runner is None:
            return _without_version(permit, spec)
        return replace(permit, digest=runner.digest, quantization=runner.quantization)

    def _loaded_runner(self, permit: GrantedPermit, spec: ModelSpec) -> LoadedModel | None:
        listed = self._list_and_correct(spec)
        named = [each for each in listed if each.name == spec.tag]
        if not named:
            state = self._coordinator.read()
            named = [e for e in listed if state.places_of([e]) == [state.place_of(spec.tag)]]
        # The one that was in memory before the request began has not been loaded for it.
        newer = [each for each in named if each.digest != permit.digest] or named
        return newer[0] if len(newer) == 1 else None

    def _list_and_correct(self, spec: ModelSpec) -> list[LoadedModel]:
        """Return the models in memory, and correct the registry, as the leader would do later."""
        residency = self._coordinator.read().residency
        listed = self._runtime.loaded()
        pulled = {model.name: model for model in self._runtime.pulled()}
        with self._coordinator.transaction() as transaction:
            # If the models in memory have changed since, the leader corrects the registry.
            if transaction.state.residency == residency:
                if self._runtime_status.current().shares_runners:
                    names = RunnerNames(pulled, self._coordinator.limits.models)
                    correct_names(transaction, listed, names)
                update_replaced(transaction.state, listed)
                _adopt(transaction, listed, spec)
        return listed


def _adopt(transaction: Transaction, listed: list[LoadedModel], spec: ModelSpec) -> None:
    """Give the model a place, if the leader has taken it away while the new version was loaded."""
    state = transaction.state
    place = state.place_of(spec.tag)
    has_room = len(state.registry) + len(state.unloading) < state.max_loaded
    for runner in listed:
        if has_room and not state.in_memory(place) and state.places_of([runner]) == [place]:
            state.adopt(place, transaction.now, **resident_fields(runner))


def _without_version(permit: GrantedPermit, spec: ModelSpec) -> GrantedPermit:
    warning = _UNKNOWN.format(model=spec.id)
    return replace(permit, digest=None, quantization=None, warnings=(warning,))
