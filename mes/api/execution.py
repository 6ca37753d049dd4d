"""Running: the use case for the present request, waited for or told of while it goes on."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial

from mes.api.operation_docs import RUN_ERRORS
from mes.api.request_log import RequestLog, request_log
from mes.api.serializers import serialize_inference
from mes.api.services import Services, services
from mes.api.streaming import Document, Documents, StreamingResponse
from mes.domain import Client, Event, Inference, InferenceRequest
from mes.errors import SchemaInvalid, SchemaUnsafe
from mes.inference import infer
from mes.streams import Stream

# What keeps an inference from being answered.
ERRORS = (SchemaInvalid, SchemaUnsafe, *RUN_ERRORS)


def run_blocking(request: InferenceRequest) -> Document:
    """Run it and wait for it: the answer of `POST /v1/inference`."""
    own, said = _begin_log(request)
    with own.client() as client:
        return _log_result(_inference_call(request, own, said, client)(), said)


def run_streaming(
    request: InferenceRequest,
    tell_of: Callable[[Event], Document | None],
    response_stream: StreamingResponse,
) -> Generator[Documents, None, Document]:
    """What is to be told of the events, unless the delivery takes it; returns the answer.

    Closing it ends the inference.
    """
    own, said = _begin_log(request)
    patience = own.settings.stream_write_timeout_seconds
    with own.client() as client:
        run = _inference_call(request, own, said, client)

        def work(emit: Callable[..., bool]) -> Inference:
            return run(emit=lambda *events: emit(*filter(None, map(tell_of, events))))

        with closing(Stream(work, reader=response_stream, patience_seconds=patience)) as stream:
            yield from stream
    return _log_result(stream.result, said)


def _begin_log(request: InferenceRequest) -> tuple[Services, RequestLog]:
    said = request_log()
    # By the names that OpenTelemetry has for them.
    operation = "chat" if request.messages else "text_completion"
    said.note(model=request.model_id[:200], operation=operation)
    return services(), said


def _inference_call(
    request: InferenceRequest, own: Services, said: RequestLog, client: Client
) -> Callable[..., Inference]:
    return partial(
        infer,
        request,
        catalog=own.catalog.current(),
        schema_limits=own.schema_limits,
        scheduler=own.scheduler,
        runtime=own.runtime,
        runtime_status=own.runtime_status.current(),
        client=client,
        request_id=said.request_id,
    )


def _log_result(inference: Inference, said: RequestLog) -> Document:
    document = serialize_inference(inference, said.request_id)
    said.note(**{name: document[name] for name in ("usage", "timings", "finish_reason")})
    if document["structured"]:
        told = ("verdict", "attempts", "first_verdict", "mode")
        said.note(**{name: document["structured"][name] for name in told})
    return document
