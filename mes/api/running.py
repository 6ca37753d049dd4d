"""Running: the use case for the present request, waited for or told of while it goes on."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial

from mes.api.dumps import dump
from mes.api.promises import RUN_ERRORS
from mes.api.requests import Line, line
from mes.api.services import Services, services
from mes.api.streamed import Delivery, Document, Documents
from mes.domain import Caller, Event, Inference, InferenceRequest
from mes.errors import SchemaInvalid, SchemaUnsafe
from mes.inference import infer
from mes.stream import Stream

# What keeps an inference from being answered.
ERRORS = (SchemaInvalid, SchemaUnsafe, *RUN_ERRORS)


def answered(request: InferenceRequest) -> Document:
    """Run it and wait for it: the answer of `POST /v1/inference`."""
    own, said = _about(request)
    with own.caller() as caller:
        return _noted(_inferring(request, own, said, caller)(), said)


def happening(
    request: InferenceRequest, tell_of: Callable[[Event], Document | None], delivery: Delivery
) -> Generator[Documents, None, Document]:
    """What is to be told of the events, unless the delivery takes it; returns the answer.

    Closing it ends the inference.
    """
    own, said = _about(request)
    patience = own.settings.stream_write_timeout_seconds
    with own.caller() as caller:
        run = _inferring(request, own, said, caller)

        def work(tell: Callable[..., bool]) -> Inference:
            return run(tell=lambda *events: tell(*filter(None, map(tell_of, events))))

        with closing(Stream(work, reader=delivery, patience_seconds=patience)) as stream:
            yield from stream
    return _noted(stream.result, said)


def _about(request: InferenceRequest) -> tuple[Services, Line]:
    said = line()
    # By the names that OpenTelemetry has for them.
    operation = "chat" if request.messages else "text_completion"
    said.note(model=request.model_id[:200], operation=operation)
    return services(), said


def _inferring(
    request: InferenceRequest, own: Services, said: Line, caller: Caller
) -> Callable[..., Inference]:
    return partial(
        infer,
        request,
        catalog=own.catalog.current(),
        schema_limits=own.schema_limits,
        scheduler=own.scheduler,
        runtime=own.runtime,
        runtime_status=own.runtime_status.current(),
        caller=caller,
        request_id=said.request_id,
    )


def _noted(inference: Inference, said: Line) -> Document:
    document = dump(inference, said.request_id)
    said.note(**{name: document[name] for name in ("usage", "timings", "finish_reason")})
    if document["structured"]:
        told = ("verdict", "attempts", "first_verdict", "mode")
        said.note(**{name: document["structured"][name] for name in told})
    return document
