"""Models: what may be run, and bringing it in and out of memory by hand."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from mes.api.answers import answer
from mes.api.auth import auth
from mes.api.describe import as_openai, describe
from mes.api.promises import LOAD_ERRORS, TURN_ERRORS, promises
from mes.api.services import Services, services
from mes.api.shapes import DoneAnswer, ModelAnswer, ModelsAnswer
from mes.domain import ModelSpec
from mes.errors import MesError, ModelBusy, ModelNotFound, QueueFull
from mes.keys import ADMIN

bp = Blueprint("models", __name__, url_prefix="/v1/models")


@bp.get("")
@auth.login_required
@promises(ModelsAnswer)
def index() -> Response:
    """The configured models; readable by an OpenAI client too."""
    own = services()
    state, runtime_status, catalog = (
        own.coordinator.read(),
        own.runtime_status.current(),
        own.catalog.current(),
    )
    return answer(
        {
            "object": "list",
            "data": [as_openai(spec) for spec in catalog.enabled],
            "models": [describe(spec, state, runtime_status) for spec in catalog.models],
        }
    )


@bp.get("/<path:model_id>")
@auth.login_required
@promises(ModelAnswer, raises=(ModelNotFound,))
def show(model_id: str) -> Response:
    """One model, with what the runtime knows of it; null where it cannot be asked."""
    own = services()
    spec = own.catalog.current().get(model_id)
    described = describe(spec, own.coordinator.read(), own.runtime_status.current())
    return answer({**as_openai(spec), **described, **_from_runtime(spec, own)})


@bp.post("/<path:model_id>/load")
@auth.login_required(role=ADMIN)
@promises(DoneAnswer, raises=(ModelNotFound, *TURN_ERRORS))
def load(model_id: str) -> Response:
    """Load the model and wait until it is ready."""
    own = services()
    spec = own.catalog.current().get(model_id)
    with own.caller() as caller:
        own.scheduler.load(spec, caller)
    return _done(spec, f"{spec.id} is loaded")


@bp.post("/<path:model_id>/unload")
@auth.login_required(role=ADMIN)
@promises(DoneAnswer, raises=(ModelNotFound, ModelBusy, QueueFull, *LOAD_ERRORS))
def unload(model_id: str) -> Response:
    """Let the model drain and unload it."""
    own = services()
    spec = own.catalog.current().get(model_id)
    with own.caller() as caller:
        own.scheduler.unload(spec, caller)
    return _done(spec, f"{spec.id} is not loaded any more")


def _done(spec: ModelSpec, message: str) -> Response:
    return answer({"success": True, "message": message, "model_id": spec.id})


def _from_runtime(spec: ModelSpec, own: Services) -> dict[str, Any]:
    pulled = own.runtime_status.current().pulled.get(spec.tag)
    try:
        card = own.runtime.card(spec.tag)
    except MesError:
        card = None
    return {
        "digest": pulled.digest if pulled else None,
        "quantization": card.quantization if card else None,
        "parameter_size": card.parameter_size if card else None,
        "context_length": card.context_length if card else None,
        "capabilities": list(card.capabilities) if card else None,
    }
