"""The client of Ollama's HTTP API, on top of `requests`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import requests

from mes.domain import (
    Client,
    Emit,
    LoadedModel,
    ModelCard,
    ModelSpec,
    Prompt,
    PulledModel,
    PullProgress,
    Reply,
    Vectors,
    no_op,
)
from mes.errors import (
    GenerationAborted,
    GenerationTimeout,
    LoadFailed,
    LoadTimeout,
    MesError,
    ModelNotPulled,
    NotCapable,
    PullFailed,
    RuntimeReplyInvalid,
    ThinkLevelRefused,
)
from mes.event_loop import EventLoop
from mes.ollama import (
    embeddings,
    error_responses,
    generation,
    payloads,
    pull_progress,
    responses,
    tokens,
)
from mes.ollama.connections import with_body
from mes.ollama.exchange import Operation
from mes.ollama.http_interface import require_expected_http_libraries
from mes.ollama.progress import GenerationProgress
from mes.ollama.think_levels import RefusedThinkLevels
from mes.ollama.transport import Transport
from mes.streams import StreamPump

_GENERATION = Operation("generation", GenerationTimeout, GenerationAborted)
_EMBEDDING = Operation("embedding", GenerationTimeout, GenerationAborted)
_DETOKENIZATION = Operation("conversion of token ids", GenerationTimeout, GenerationAborted)
_LOAD = Operation("load", LoadTimeout, LoadFailed)
_PULL = Operation("pull", PullFailed, PullFailed)


class OllamaRuntime:
    """A client of one Ollama (domain.Runtime). One instance serves all threads of a worker.

    Args:
        host: URL, or host and port.
        pool_size: number of connections that are kept open.
        reply_timeout_seconds: for the short requests: all but generations, loads and pulls.
        max_reply_bytes: a longer response is an error.

    Raises SystemExit if the installed HTTP libraries are not the expected ones.
    """

    def __init__(
        self,
        *,
        host: str,
        event_loop: EventLoop,
        stream_pump: StreamPump,
        pool_size: int,
        connect_timeout_seconds: float = 2.0,
        reply_timeout_seconds: float = 5.0,
        max_reply_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        require_expected_http_libraries()
        self._stream_pump = stream_pump
        self._refused_think_levels = RefusedThinkLevels()
        self._transport = transport = Transport(
            host=host,
            event_loop=event_loop,
            pool_size=pool_size,
            connect_timeout_seconds=connect_timeout_seconds,
            reply_timeout_seconds=reply_timeout_seconds,
            max_reply_bytes=max_reply_bytes,
        )
        self._generate = transport.endpoint("POST", "/api/generate")
        self._chat = transport.endpoint("POST", "/api/chat")
        self._embed = transport.endpoint("POST", "/api/embed")
        self._detokenize = transport.endpoint("POST", "/api/detokenize")
        self._show = transport.endpoint("POST", "/api/show")
        self._pull = transport.endpoint("POST", "/api/pull")
        self._delete = transport.endpoint("DELETE", "/api/delete")
        self._ps = transport.endpoint("GET", "/api/ps")
        self._tags = transport.endpoint("GET", "/api/tags")
        self._version = transport.endpoint("GET", "/api/version")

    def generate(
        self, prompt: Prompt, *, deadline: float, client: Client, emit: Emit = no_op
    ) -> Reply:
        """Run one generation and return its reply.

        A model that refuses a level of thinking is asked once more, to think without a level.
        """
        refused = self._refused_think_levels
        if not refused.has(prompt):
            try:
                return self._generate_once(prompt, deadline=deadline, client=client, emit=emit)
            except ThinkLevelRefused:
                refused.add(prompt)
        prompt = replace(prompt, think=True)
        return self._generate_once(prompt, deadline=deadline, client=client, emit=emit)

    def _generate_once(
        self, prompt: Prompt, *, deadline: float, client: Client, emit: Emit
    ) -> Reply:
        template = self._chat if payloads.goes_to_chat(prompt) else self._generate
        request = with_body(template, payloads.generation_payload(prompt))
        exchange = self._transport.exchange(_GENERATION, deadline)
        progress = GenerationProgress.of(prompt)
        with (
            progress.noted_in_timeouts(),
            exchange,
            client.on_disconnect(exchange.cancel_for_client),
        ):
            progress.sent_at = time.monotonic()
            response = self._transport.send(exchange, request)
            if response.status != 200:
                refusal = self._transport.read_refusal(exchange, response)
                raise error_responses.generation_error_from(refusal, prompt)
            body = self._transport.iter_body(exchange)
            steps = generation.read_generation(body, prompt, progress, emit=emit)
            if emit is no_op:
                reply = generation.run_to_end(steps)
            else:
                reply = self._stream_pump.run(steps, exchange.readable_socket)
            exchange.drain(body)
            return reply

    def detokenize(
        self, spec: ModelSpec, ids: Sequence[int], *, deadline: float, client: Client
    ) -> str:
        """Return the text of token ids; only the embedded runtime can convert them."""
        request = with_body(self._detokenize, tokens.detokenize_payload(spec, ids))
        exchange = self._transport.exchange(_DETOKENIZATION, deadline)
        with exchange, client.on_disconnect(exchange.cancel_for_client):
            response = self._transport.send(exchange, request)
            if response.status == 200:
                return tokens.parse_text(self._transport.read(exchange))
            refusal = self._transport.read_refusal(exchange, response)
        raise tokens.detokenize_error_from(refusal, tag=spec.tag)

    def embed(
        self,
        spec: ModelSpec,
        texts: Sequence[str],
        *,
        dimensions: int | None,
        deadline: float,
        client: Client,
    ) -> Vectors:
        """Return a vector for each text; the runtime gets the texts in batches."""
        vectors = embeddings.join_batches(
            self._embed_batch(batch, spec, dimensions, deadline, client)
            for batch in embeddings.split_into_batches(texts)
        )
        embeddings.check_dimensions(vectors, tag=spec.tag, dimensions=dimensions)
        return vectors

    def _embed_batch(
        self,
        batch: embeddings.EmbeddingBatch,
        spec: ModelSpec,
        dimensions: int | None,
        deadline: float,
        client: Client,
    ) -> Vectors:
        payload = embeddings.embedding_payload(spec, batch.texts, dimensions)
        exchange = self._transport.exchange(_EMBEDDING, deadline)
        with exchange, client.on_disconnect(exchange.cancel_for_client):
            response = self._transport.send(exchange, with_body(self._embed, payload))
            if response.status == 200:
                return embeddings.parse_vectors(
                    self._transport.read(exchange), number=len(batch.texts)
                )
            refusal = self._transport.read_refusal(exchange, response)
        context_length = partial(self._context_length, spec.tag)
        raise embeddings.embedding_error_from(
            refusal, batch, tag=spec.tag, context_length=context_length
        )

    def load(self, spec: ModelSpec, *, deadline: float) -> None:
        """Load a model and wait until it is ready."""
        request = with_body(self._generate, payloads.load_payload(spec))
        try:
            self._load(
                spec, deadline, request, partial(responses.require_done, error_class=LoadFailed)
            )
        except NotCapable:
            # A model that generates no text is loaded by a request for embeddings.
            request = with_body(self._embed, embeddings.load_payload(spec))
            self._load(spec, deadline, request, embeddings.check_loaded)

    def _load(
        self,
        spec: ModelSpec,
        deadline: float,
        request: requests.PreparedRequest,
        check: Callable[[Iterator[bytes]], None],
    ) -> None:
        # A client that disconnects does not cancel a load: other requests may wait for it.
        with self._transport.exchange(_LOAD, deadline) as exchange:
            response = self._transport.send(exchange, request)
            if response.status != 200:
                refusal = self._transport.read_refusal(exchange, response)
                raise error_responses.load_error_from(refusal, tag=spec.tag)
            check(self._transport.iter_body(exchange))

    def unload(self, name: str) -> None:
        """Request that a model leaves memory. A model that is not pulled is unloaded already."""
        try:
            body = self._transport.ask(
                with_body(self._generate, payloads.unload_payload(name)), name
            )
        except ModelNotPulled:
            return
        responses.require_done([body], error_class=RuntimeReplyInvalid)

    def loaded(self) -> list[LoadedModel]:
        """Return the models in memory, without those that are still loading."""
        return responses.parse_loaded(self._transport.ask(self._ps))

    def pulled(self) -> list[PulledModel]:
        """Return the models on disk."""
        return responses.parse_pulled(self._transport.ask(self._tags))

    def version(self) -> str:
        """Return name and version of the runtime, such as "ollama 0.33.0"."""
        return responses.parse_version(self._transport.ask(self._version))

    def card(self, name: str) -> ModelCard:
        """Return the properties of a model."""
        return responses.parse_card(
            self._transport.ask(with_body(self._show, {"model": name}), name)
        )

    def pull(self, name: str, *, deadline: float, client: Client) -> Iterator[PullProgress]:
        """Download a model to the runtime's disk, and yield the progress."""
        exchange = self._transport.exchange(_PULL, deadline)
        with exchange, client.on_disconnect(exchange.cancel_for_client):
            request = with_body(self._pull, {"model": name, "stream": True})
            response = self._transport.send(exchange, request)
            if response.status != 200:
                refusal = self._transport.read_refusal(exchange, response)
                raise pull_progress.pull_error_from(refusal, tag=name)
            body = exchange.iter_body()
            yield from pull_progress.parse_progress(body)
            exchange.drain(body)

    def delete(self, name: str) -> None:
        """Delete a model from the runtime's disk."""
        self._transport.ask(with_body(self._delete, {"model": name}), name)

    def shut_down(self) -> None:
        """End all exchanges, present and future, with ShuttingDown."""
        self._transport.shut_down()

    def _context_length(self, name: str) -> int | None:
        """Return the context length of a model in memory; None if it is unknown."""
        try:
            models = self.loaded()
        except MesError:
            return None
        return next((model.context_length for model in models if model.name == name), None)
