"""Requests with several choices, and the stream that contains the chunks of all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, Protocol

from mes.api.generations import Generate, running
from mes.api.inference import begin_log, inference_call, log_fields
from mes.api.inference_responses import InferenceOutcome
from mes.api.middleware import RequestLog
from mes.api.response_schemas import UsageSchema
from mes.api.services import Services
from mes.api.streaming import Document, Documents
from mes.config.catalog import Catalog
from mes.domain import Event, Inference, InferenceRequest, total_usage
from mes.errors import ClientDisconnected, ClientTooSlow

# The buffer has room for most answers, so that permits are given back however slow the reader is.
_MAX_BUFFERED_DOCUMENTS = 1024


class ChoiceChunks(Protocol):
    """The chunks of one choice in a stream."""

    def serialize(self, event: Event) -> Document | None:
        """Return the chunk that reports the event; None for an event that is not reported."""

    def last(self, outcome: InferenceOutcome) -> Iterable[Document]:
        """Return the chunks that come after the last event."""


def repeat(request: InferenceRequest, count: int) -> list[InferenceRequest]:
    """Return the requests for so many choices, each with a seed of its own."""
    return [replace(request, seed_offset=number) for number in range(count)]


def run_choices(requests: Sequence[InferenceRequest]) -> list[InferenceOutcome]:
    """Run the generations of one request and return their outcomes in order.

    The first failure ends the other generations, and is raised.
    """
    services, log = _begin_log(requests)
    catalog = services.catalog.current()
    calls = [_logged(inference_call(each, services, log, catalog), log) for each in requests]
    with services.client() as client:
        limits = _limits(services, catalog, requests[0])
        with running(calls, client=client, **limits) as generations:
            generations.join()
    return _finish(generations.results(), requests[0], log)


def stream_choices(
    requests: Sequence[InferenceRequest], choices: Sequence[ChoiceChunks], catalog: Catalog
) -> Generator[Documents, None, list[InferenceOutcome]]:
    """Run the generations, yield the chunks of all choices as they arrive; return the outcomes.

    The last chunks of a choice come when it ends. Closing the generator ends all generations.
    """
    services, log = _begin_log(requests)
    patience = services.settings.stream_write_timeout_seconds
    buffer = DocumentBuffer()
    calls = [
        partial(
            _write_chunks,
            _logged(inference_call(request, services, log, catalog), log),
            chunks,
            partial(ChoiceWriter, buffer, chunks.serialize, patience),
            partial(
                InferenceOutcome, request_id=log.request_id, index=index, ignored=request.ignored
            ),
        )
        for index, (request, chunks) in enumerate(zip(requests, choices, strict=True))
    ]
    with services.client() as client:
        limits = _limits(services, catalog, requests[0])
        with running(calls, client=client, on_end=buffer.end, **limits) as generations:
            try:
                yield from buffer
            finally:
                buffer.close()
    return _finish(generations.results(), requests[0], log)


def _begin_log(requests: Sequence[InferenceRequest]) -> tuple[Services, RequestLog]:
    services, log = begin_log(requests[0])
    log.add_fields(choices=len(requests))
    return services, log


def _limits(services: Services, catalog: Catalog, request: InferenceRequest) -> dict[str, Any]:
    spec = catalog.get(request.model_id)
    return {"max_concurrent": spec.max_concurrent, "wait_slots": services.wait_slots}


def _logged(call: Generate, log: RequestLog) -> Generate:
    """Return a call that adds the generation to those that the metrics count."""

    def run(**arguments: Any) -> Inference:
        inference = call(**arguments)
        log.generations.append(log_fields(InferenceOutcome(inference, log.request_id)))
        return inference

    return run


def _write_chunks(
    call: Generate,
    chunks: ChoiceChunks,
    create_writer: Callable[[], ChoiceWriter],
    build_outcome: Callable[[Inference], InferenceOutcome],
    **arguments: Any,
) -> Inference:
    writer = create_writer()
    inference = call(emit=writer.emit, **arguments)
    writer.write(list(chunks.last(build_outcome(inference))))
    return inference


def _finish(
    inferences: Sequence[Inference], request: InferenceRequest, log: RequestLog
) -> list[InferenceOutcome]:
    log.add_fields(usage=UsageSchema.serialize(total_usage(each.usage for each in inferences)))
    return [
        InferenceOutcome(each, log.request_id, index, ignored=request.ignored)
        for index, each in enumerate(inferences)
    ]


class DocumentBuffer:
    """Documents of several threads, in the order of their arrival, for one reader."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._batches: list[Sequence[Document]] = []
        self._has_ended = False
        self._is_closed = False

    def __iter__(self) -> Iterator[Documents]:
        """Yield all documents that are there, each time that there are some, until the end."""
        while batches := self._take():
            yield list(chain.from_iterable(batches))

    def put(self, documents: Sequence[Document]) -> bool:
        """Add documents without blocking; return whether there is room for more."""
        with self._changed:
            self._batches.append(documents)
            self._changed.notify_all()
            return self._has_room()

    def wait_for_room(self, seconds: float) -> None:
        """Return once there is room.

        Raises ClientTooSlow after so many seconds, and ClientDisconnected once the reader has left.
        """
        with self._changed:
            has_room = self._changed.wait_for(self._has_room_or_is_closed, max(0.0, seconds))
            if self._is_closed:
                raise ClientDisconnected("the client has disconnected")
        if not has_room:
            raise ClientTooSlow("the client did not read the stream in time")

    def end(self) -> None:
        """Record that no more documents come."""
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def close(self) -> None:
        """Record that the reader has left."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _take(self) -> list[Sequence[Document]]:
        with self._changed:
            self._changed.wait_for(lambda: self._batches or self._has_ended)
            batches, self._batches = self._batches, []
            self._changed.notify_all()
            return batches

    def _has_room(self) -> bool:
        return len(self._batches) < _MAX_BUFFERED_DOCUMENTS

    def _has_room_or_is_closed(self) -> bool:
        return self._is_closed or self._has_room()


class ChoiceWriter:
    """Writes the chunks of one choice into the buffer; created by the thread that generates.

    While the buffer is full the generation pauses, for at most `patience_seconds` in total; then
    it fails with ClientTooSlow. Only its own thread waits, never the stream pump.
    """

    def __init__(
        self,
        buffer: DocumentBuffer,
        serialize: Callable[[Event], Document | None],
        patience_seconds: float,
    ) -> None:
        self._buffer = buffer
        self._serialize = serialize
        self._patience_seconds = patience_seconds
        self._thread = threading.get_ident()

    def emit(self, *events: Event) -> bool:
        """Write the chunks of the events; return whether any thread may emit the next ones."""
        documents = [chunk for each in events if (chunk := self._serialize(each)) is not None]
        return bool(documents) and self.write(documents)

    def write(self, documents: Sequence[Document]) -> bool:
        """Write chunks; return whether there is room for more."""
        if threading.get_ident() == self._thread:
            began = time.monotonic()
            self._buffer.wait_for_room(self._patience_seconds)
            self._patience_seconds -= time.monotonic() - began
        return self._buffer.put(documents)
