"""Response schemas of the health, status and queue endpoints."""

from __future__ import annotations

from dataclasses import dataclass

from marshmallow import fields

from mes.api.model_responses import ModelState
from mes.api.response_fields import (
    ResponseSchema,
    boolean,
    choice,
    field,
    integer,
    nested_list,
    number,
    string,
    strings,
)
from mes.config.catalog import Catalog
from mes.domain import milliseconds
from mes.scheduling import stuck_models
from mes.scheduling.queue_estimates import QueuePosition
from mes.scheduling.registry import DELETED, NOT_UNLOADED, REPLACED

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


# Status.


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
