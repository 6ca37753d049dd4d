"""Response schemas of the health, status, queue and model endpoints."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from marshmallow import fields

from mes.api.response_fields import (
    ResponseSchema,
    boolean,
    choice,
    constant,
    field,
    integer,
    nested_list,
    number,
    string,
    strings,
)
from mes.config.catalog import Catalog
from mes.domain import ModelCard, ModelSpec, milliseconds
from mes.scheduling import stuck_models
from mes.scheduling.queue_estimates import QueuePosition
from mes.scheduling.registry import DELETED, NOT_UNLOADED, REPLACED
from mes.scheduling.runtime_status import RuntimeStatus
from mes.scheduling.state import State

# Health and readiness.


class HealthAnswer(ResponseSchema):
    """The response to `GET /health`."""

    status = choice(("healthy",), "Always `healthy`.")
    timestamp = field(fields.DateTime, "The time of the response, in UTC.")
    version = string("Version of MES.")


class ReadyAnswer(ResponseSchema):
    """The response to `GET /ready`."""

    status = choice(("ready", "not_ready"), "`ready` if all checks are `ok`.")
    service = string("`ok`, or that the service is shutting down.")
    runtime = string("`ok`, or the reason why the runtime cannot be used.")
    catalog = string("`ok`, or the error in the latest edit of the catalog.")
    state = string("`ok`, or the error with `STATE_DIR`.")
    memory = string(
        "`ok`, or the models that have all places in memory and cannot be unloaded, with remedies."
    )
    runtime_places = string(
        "`ok`, or that the runtime holds fewer models in memory than `MAX_LOADED_MODELS`. MES "
        "serves with as many, so that this does not change `status`."
    )


# Queue positions.


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """A waiting request and the catalog that names its model: the source of `WaitingAnswer`."""

    standing: QueuePosition
    catalog: Catalog

    @property
    def model_id(self) -> str:
        """The model's id in the catalog; its tag if the catalog does not list it any more."""
        spec = self.catalog.by_tag(self.standing.model)
        return spec.id if spec else self.standing.model

    @property
    def expected_start_ms(self) -> int | None:
        seconds = self.standing.expected_seconds
        return None if seconds is None else milliseconds(seconds)


class WaitingAnswer(ResponseSchema):
    """A request that waits for a permit."""

    request_id = string("The request's `X-Request-ID`.", source="standing.request")
    model_id = string("Id of the model the request waits for.")
    position = integer(
        "Position in the queue of the model; 1 is the next.", source="standing.position"
    )
    waited_ms = integer(
        "Time the request has waited so far, in milliseconds.",
        source=lambda entry: milliseconds(entry.standing.waited_seconds),
    )
    expected_start_ms = integer(
        "Estimated time until the request starts, in milliseconds: if generations, loads and new "
        "requests are as they were lately. Null until a request of any model has ended.",
        null=True,
    )


# Models.


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


class StuckModel(ResponseSchema):
    """A model that takes up a place in memory and cannot be unloaded."""

    model = string("Name by which the runtime lists the model.")
    digest = string("Digest of the model in memory.")
    cause = choice(
        (DELETED, REPLACED, NOT_UNLOADED),
        "`deleted`: it was deleted while it was loaded; `replaced`: another version got its name "
        "while it was loaded; `not_unloaded`: the runtime did not unload it. A model of the last "
        "kind still serves its requests.",
    )
    detail = string(
        "The cause and the remedy.",
        source=lambda runner: stuck_models.problem(runner.model, runner.cause),
    )


class StatusAnswer(ResponseSchema):
    """The response to `GET /v1/status`."""

    ollama_running = boolean("Whether the runtime answers.")
    runtime = string("Name and version of the runtime, such as `ollama 0.33.0`.", null=True)
    models_loaded = strings("Ids of the models in memory.")
    max_loaded_models = integer("Most models that may be in memory at the same time.")
    stuck_models = nested_list(
        StuckModel, "The models that take up a place in memory and cannot be unloaded."
    )
    effective_max_loaded_models = integer(
        "The same, or fewer if the runtime was found to hold fewer."
    )
    memory_available_gb = number("Available memory of this machine, in GB.", null=True)
    gpu_available = boolean("Whether the machine has a GPU.")
    version = string("Version of MES.")
    models = nested_list(ModelState, "All models of the catalog.")
    queue = nested_list(WaitingAnswer, "The waiting requests, in order of arrival.")


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
