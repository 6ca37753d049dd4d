"""The runtime behind Ollama's HTTP API, asked through `requests`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import requests
from urllib3 import HTTPResponse
from urllib3.util import parse_url

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
    RuntimeUnavailable,
    ShuttingDown,
)
from mes.event_loop import EventLoop
from mes.ollama import embeddings, payloads, pull_progress, responses
from mes.ollama.connections import RuntimeAdapter
from mes.ollama.embeddings import EmbeddingBatch
from mes.ollama.exchange import Exchange, OpenExchanges, Operation
from mes.ollama.generation import read_generation
from mes.ollama.payloads import prepare_request, with_body
from mes.streams import StreamPump

_GENERATION = Operation("generation", late=GenerationTimeout, broken=GenerationAborted)
_EMBEDDING = Operation("embedding", late=GenerationTimeout, broken=GenerationAborted)
_LOAD = Operation("load", late=LoadTimeout, broken=LoadFailed)
_PULL = Operation("pull", late=PullFailed, broken=PullFailed)
_QUESTION = Operation("answer", late=RuntimeUnavailable, broken=RuntimeUnavailable)


class OllamaRuntime:
    """Asks one Ollama (domain.Runtime). One instance serves all threads of a worker."""

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
        url = parse_url(host if "://" in host else f"http://{host}")
        self._where = url.netloc or host  # without a password, which `host` may hold
        self._event_loop = event_loop
        self._stream_pump = stream_pump
        self._connect_timeout_seconds = connect_timeout_seconds
        self._reply_timeout_seconds = reply_timeout_seconds
        self._max_reply_bytes = max_reply_bytes
        self._open_exchanges = OpenExchanges()
        self._adapter = RuntimeAdapter(size=pool_size)
        self._generate = prepare_request("POST", url, "/api/generate")
        self._chat = prepare_request("POST", url, "/api/chat")
        self._embed = prepare_request("POST", url, "/api/embed")
        self._show = prepare_request("POST", url, "/api/show")
        self._pull = prepare_request("POST", url, "/api/pull")
        self._ps = prepare_request("GET", url, "/api/ps")
        self._tags = prepare_request("GET", url, "/api/tags")
        self._version = prepare_request("GET", url, "/api/version")

    def generate(
        self, prompt: Prompt, *, deadline: float, client: Client, emit: Emit = no_op
    ) -> Reply:
        """Run one generation to its end."""
        endpoint = self._chat if prompt.messages else self._generate
        request = with_body(endpoint, payloads.generation_payload(prompt))
        exchange = self._exchange(_GENERATION, deadline)
        with exchange, client.on_disconnect(exchange.hang_up):
            sent = time.monotonic()
            answer = self._send(exchange, request)
            if answer.status != 200:
                raise responses.generation_error_from(
                    self._refusal(exchange, answer),
                    tag=prompt.spec.tag,
                    with_schema=prompt.format is not None,
                )
            pieces = exchange.pieces(at_most=self._max_reply_bytes)
            steps = read_generation(pieces, sent=sent, emit=emit)
            reply = self._stream_pump.run(steps, exchange.source)
            exchange.finish(pieces)
            return reply

    def embed(
        self,
        spec: ModelSpec,
        texts: Sequence[str],
        *,
        dimensions: int | None,
        deadline: float,
        client: Client,
    ) -> Vectors:
        """Make a vector of each text, of some at a time."""
        made = embeddings.join_batches(
            self._embed_some(batch, spec, dimensions, deadline, client)
            for batch in embeddings.split_into_batches(texts)
        )
        embeddings.check_length(made, tag=spec.tag, dimensions=dimensions)
        return made

    def _embed_some(
        self,
        batch: EmbeddingBatch,
        spec: ModelSpec,
        dimensions: int | None,
        deadline: float,
        client: Client,
    ) -> Vectors:
        request = with_body(self._embed, payloads.embedding_payload(spec, batch.texts, dimensions))
        exchange = self._exchange(_EMBEDDING, deadline)
        with exchange, client.on_disconnect(exchange.hang_up):
            answer = self._send(exchange, request)
            if answer.status == 200:
                whole = b"".join(exchange.pieces(at_most=self._max_reply_bytes))
                return embeddings.parse_vectors(whole, number=len(batch.texts))
            no = self._refusal(exchange, answer)
        context_length = partial(self._context_length, spec.tag)
        raise embeddings.embedding_error_from(
            no, batch, tag=spec.tag, context_length=context_length
        )

    def load(self, spec: ModelSpec, *, deadline: float) -> None:
        """Load and wait until ready."""
        said_done = partial(responses.require_done, otherwise=LoadFailed)
        try:
            self._load(
                spec, deadline, with_body(self._generate, payloads.load_payload(spec)), said_done
            )
        except NotCapable:
            # A model that writes no text is loaded by the one thing it can do.
            by_embedding = with_body(self._embed, payloads.embedding_payload(spec, ()))
            self._load(spec, deadline, by_embedding, embeddings.check_loaded)

    def _load(
        self,
        spec: ModelSpec,
        deadline: float,
        request: requests.PreparedRequest,
        check: Callable[[Iterator[bytes]], None],
    ) -> None:
        # No caller can end it: a load that is broken off is lost for all who wait for it.
        with self._exchange(_LOAD, deadline) as exchange:
            answer = self._send(exchange, request)
            if answer.status != 200:
                raise responses.load_error_from(self._refusal(exchange, answer), tag=spec.tag)
            check(exchange.pieces(at_most=self._max_reply_bytes))

    def unload(self, name: str) -> None:
        """Ask for the model to leave memory. What is not even pulled has left it."""
        try:
            answer = self._ask(with_body(self._generate, payloads.unload_payload(name)), name)
        except ModelNotPulled:
            return
        responses.require_done([answer], otherwise=RuntimeReplyInvalid)

    def loaded(self) -> list[LoadedModel]:
        """The models in memory; those still loading are not listed."""
        return responses.parse_loaded(self._ask(self._ps))

    def pulled(self) -> list[PulledModel]:
        """The models on disk."""
        return responses.parse_pulled(self._ask(self._tags))

    def version(self) -> str:
        """What runs, such as "ollama 0.33.0"."""
        return responses.parse_version(self._ask(self._version))

    def card(self, name: str) -> ModelCard:
        """What the runtime knows of one model."""
        return responses.parse_card(self._ask(with_body(self._show, {"model": name}), name))

    def pull(self, name: str, *, deadline: float, client: Client) -> Iterator[PullProgress]:
        """Fetch a model onto the runtime's disk, telling how it goes."""
        exchange = self._exchange(_PULL, deadline)
        with exchange, client.on_disconnect(exchange.hang_up):
            answer = self._send(exchange, with_body(self._pull, {"model": name, "stream": True}))
            if answer.status != 200:
                raise pull_progress.pull_error_from(self._refusal(exchange, answer), tag=name)
            pieces = exchange.pieces()
            yield from pull_progress.parse_progress(pieces)
            exchange.finish(pieces)

    def shut_down(self) -> None:
        """End all that is under way, and whatever still comes, with ShuttingDown."""
        self._open_exchanges.end(
            lambda: ShuttingDown("the service is shutting down and waits no longer")
        )

    def _context_length(self, name: str) -> int | None:
        """Of a model in memory; None where it is not to be had."""
        try:
            listed = self.loaded()
        except MesError:
            return None
        return next((model.context_length for model in listed if model.name == name), None)

    def _ask(self, request: requests.PreparedRequest, name: str = "it") -> bytes:
        """A short question, answered at once."""
        deadline = time.monotonic() + self._reply_timeout_seconds
        with self._exchange(_QUESTION, deadline) as exchange:
            answer = self._send(exchange, request)
            if answer.status != 200:
                raise responses.error_from(self._refusal(exchange, answer), tag=name)
            return b"".join(exchange.pieces(at_most=self._max_reply_bytes))

    def _exchange(self, operation: Operation, deadline: float) -> Exchange:
        return Exchange(
            operation,
            where=self._where,
            event_loop=self._event_loop,
            deadline=deadline,
            open_exchanges=self._open_exchanges,
        )

    def _send(self, exchange: Exchange, request: requests.PreparedRequest) -> HTTPResponse:
        try:
            answer = self._send_once(exchange, request)
        except requests.ConnectionError:
            if not exchange.hit_stale_connection:
                raise
            exchange.retry_on_fresh_connection()
            answer = self._send_once(exchange, request)
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            # Never unpacked: a small answer could grow without bounds.
            raise RuntimeReplyInvalid("the runtime sent an encoding that was not asked for")
        return answer

    def _send_once(self, exchange: Exchange, request: requests.PreparedRequest) -> HTTPResponse:
        # Nothing can be cut before there is a connection, so this part keeps the deadline itself.
        connect = min(self._connect_timeout_seconds, max(exchange.remaining_seconds, 0.001))
        timeout = (connect, exchange.patience_seconds)
        response = self._adapter.send(request, stream=True, timeout=timeout)
        answer: HTTPResponse = response.raw
        exchange.answer = answer
        return answer

    def _refusal(self, exchange: Exchange, answer: HTTPResponse) -> responses.ErrorResponse:
        return responses.parse_error_response(
            answer.status,
            body=b"".join(exchange.pieces(at_most=self._max_reply_bytes)),
            retry_after=answer.headers.get("Retry-After"),
        )
