"""Response schemas of the model endpoints."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from mes.api.response_fields import (
    ResponseSchema,
    boolean,
    choice,
    constant,
    integer,
    nested_list,
    number,
    string,
    strings,
)
from mes.domain import ModelCard, ModelSpec, milliseconds
from mes.scheduling.runtime_status import RuntimeStatus
from mes.scheduling.state import State


@dataclass(frozen=True, slots=True)
class ModelReport:
    """A model in the catalog, in the shared state and on the runtime.

    `card` is the runtime's description of the model; None if the runtime was not asked or did not
    answer.
    """

    spec: ModelSpec
    state: State
    runtime_status: RuntimeStatus
    card: ModelCard | None = None

    @property
    def is_loaded(self) -> bool:
        return self.runtime_status.running and self.state.ready(self.spec.tag)

    @property
    def status(self) -> str:
        tag = self.spec.tag
        if not self.spec.enabled:
            return "disabled"
        if self.state.resident(tag) is not None and self.runtime_status.running:
            return "ready" if self.state.ready(tag) else "loading"
        if not self.runtime_status.running or self._is_cooling_down:
            return "unavailable"
        return "available" if tag in self.runtime_status.pulled else "not_pulled"

    @property
    def _is_cooling_down(self) -> bool:
        failure = self.state.load_failures.get(self.spec.tag)
        return failure is not None and failure.until > time.monotonic()

    @property
    def oldest_wait_ms(self) -> int | None:
        arrived = [ticket.arrived_at for ticket in self.state.waiting(self.spec.tag)[:1]]
        return milliseconds(time.monotonic() - arrived[0]) if arrived else None

    @property
    def loads(self) -> int:
        statistics = self.state.statistics.get(self.state.place_of(self.spec.tag))
        return statistics.loads if statistics else 0

    @property
    def evictions(self) -> int:
        statistics = self.state.statistics.get(self.state.place_of(self.spec.tag))
        return statistics.evictions if statistics else 0

    @property
    def capabilities(self) -> tuple[str, ...] | None:
        """The capabilities of the model; None if the runtime has not listed them."""
        pulled = self.runtime_status.pulled.get(self.spec.tag)
        known = self.card.capabilities if self.card else pulled and pulled.capabilities
        return known or None

    @property
    def effective_max_concurrent(self) -> int:
        pulled = self.runtime_status.pulled.get(self.spec.tag)
        slots = pulled.slots if pulled else None
        return min(self.spec.max_concurrent, slots or self.spec.max_concurrent)

    @property
    def digest(self) -> str | None:
        pulled = self.runtime_status.pulled.get(self.spec.tag)
        return pulled.digest if pulled else None


_CAPABILITIES = (
    "Capabilities of the model, as named by the runtime: `completion`, `embedding`, `tools`, "
    "`vision`, `thinking`; null if they are not known."
)


class ModelState(ResponseSchema):
    """A model of the catalog and its state."""

    id = string("Id of the model, for `model_id`.", source="spec.id")
    name = string("Name of the model for display.", source="spec.display_name")
    status = choice(
        ("ready", "loading", "available", "unavailable", "not_pulled", "disabled"),
        "`ready`: in memory; `available`: on the runtime's disk, loaded by the next request; "
        "`unavailable`: the runtime does not answer, or the model failed to load and cools down.",
    )
    size_gb = number("Size according to the catalog, in GB.", source="spec.size_gb", null=True)
    context_window = integer(
        "Context length according to the catalog, in tokens.",
        source="spec.context_window",
        null=True,
    )
    supports_json = boolean(
        "Whether the runtime can constrain the model to a JSON Schema.",
        source="spec.supports_json_mode",
    )
    loaded = boolean("Whether the model is in memory and ready.", source="is_loaded")
    in_flight = integer(
        "Number of requests that hold a permit.",
        source=lambda report: report.state.in_flight(report.spec.tag),
    )
    queued = integer(
        "Number of requests that wait for a permit.",
        source=lambda report: len(report.state.waiting(report.spec.tag)),
    )
    oldest_wait_ms = integer(
        "Time the oldest of the waiting requests has waited, in milliseconds.", null=True
    )
    max_concurrent = integer(
        "Most requests that may hold a permit at the same time.", source="spec.max_concurrent"
    )
    effective_max_concurrent = integer(
        "The same, as far as the runtime serves so many at a time: it may have fewer slots for the "
        "model than `max_concurrent`."
    )
    max_queue = integer("Most requests that may wait at the same time.", source="spec.max_queue")
    pinned = boolean("Whether the model is never evicted.", source="spec.pinned")
    loads = integer("Number of times the model was loaded.")
    evictions = integer("Number of times the model was evicted.")
    capabilities = strings(_CAPABILITIES, null=True)


class OpenAiModel(ResponseSchema):
    """A model, as OpenAI's API lists it."""

    id = string("Id of the model, for `model_id`.", source="spec.id")
    object = constant("model", "Always `model`.")
    created = integer("Always 0.", source=lambda report: 0)
    owned_by = string("Always `mes`.", source=lambda report: "mes")
    capabilities = strings(_CAPABILITIES, null=True)


class ModelAnswer(OpenAiModel, ModelState):
    """The response to `GET /v1/models/{model_id}`."""

    digest = string("Digest of the model on the runtime's disk.", null=True)
    quantization = string(
        "Quantization of the model.",
        source=lambda report: report.card and report.card.quantization,
        null=True,
    )
    parameter_size = string(
        "Number of parameters of the model, such as `135M`.",
        source=lambda report: report.card and report.card.parameter_size,
        null=True,
    )
    context_length = integer(
        "Longest context the model was trained for, in tokens.",
        source=lambda report: report.card and report.card.context_length,
        null=True,
    )


def _enabled(reports: Sequence[ModelReport]) -> list[ModelReport]:
    return [report for report in reports if report.spec.enabled]


class ModelsAnswer(ResponseSchema):
    """The response to `GET /v1/models`."""

    object = constant("list", "Always `list`.")
    data = nested_list(
        OpenAiModel, "The models that are enabled, for clients of OpenAI's API.", source=_enabled
    )
    models = nested_list(ModelState, "All models of the catalog.", source=lambda reports: reports)


class DoneAnswer(ResponseSchema):
    """The response to a load or an unload."""

    success = boolean("Always true.")
    message = string("Description of the result, for people.")
    model_id = string("Id of the model in the catalog.")


# Lines of a pull.


class PullProgressLine(ResponseSchema):
    """Progress of a pull."""

    type = constant("progress", "The pull goes on.")
    status = string("Progress in the runtime's words.")
    completed_bytes = integer("Bytes of the present file that have arrived.", null=True)
    total_bytes = integer("Size of the present file, in bytes.", null=True)


class PullResultLine(DoneAnswer):
    """The last line of a pull that succeeded."""

    type = constant("result", "The last line. Without it, the model has not been pulled.")
