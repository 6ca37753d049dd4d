"""The runtime behind Ollama's HTTP API, asked through `requests`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import requests
from urllib3 import HTTPResponse
from urllib3.util import parse_url

from mes.domain import (
    Caller,
    LoadedModel,
    ModelCard,
    ModelSpec,
    Prompt,
    PulledModel,
    PullProgress,
    Reply,
    Tell,
    Vectors,
    silent,
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
from mes.relay import Relay
from mes.runtime import bodies, embedding, pulling, replies
from mes.runtime.connections import Adapter
from mes.runtime.embedding import Batch
from mes.runtime.endpoints import filled, prepared
from mes.runtime.generation import generation
from mes.runtime.wire import Errand, Exchange, UnderWay
from mes.watch import Watch

_GENERATION = Errand("generation", late=GenerationTimeout, broken=GenerationAborted)
_EMBEDDING = Errand("embedding", late=GenerationTimeout, broken=GenerationAborted)
_LOAD = Errand("load", late=LoadTimeout, broken=LoadFailed)
_PULL = Errand("pull", late=PullFailed, broken=PullFailed)
_QUESTION = Errand("answer", late=RuntimeUnavailable, broken=RuntimeUnavailable)


class OllamaRuntime:
    """Asks one Ollama (domain.Runtime). One instance serves all threads of a worker."""

    def __init__(
        self,
        *,
        host: str,
        watch: Watch,
        relay: Relay,
        pool_size: int,
        connect_timeout_seconds: float = 2.0,
        reply_timeout_seconds: float = 5.0,
        max_reply_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        url = parse_url(host if "://" in host else f"http://{host}")
        self._where = url.netloc or host  # without a password, which `host` may hold
        self._watch = watch
        self._relay = relay
        self._connect_timeout_seconds = connect_timeout_seconds
        self._reply_timeout_seconds = reply_timeout_seconds
        self._max_reply_bytes = max_reply_bytes
        self._under_way = UnderWay()
        self._adapter = Adapter(size=pool_size)
        self._generate = prepared("POST", url, "/api/generate")
        self._chat = prepared("POST", url, "/api/chat")
        self._embed = prepared("POST", url, "/api/embed")
        self._show = prepared("POST", url, "/api/show")
        self._pull = prepared("POST", url, "/api/pull")
        self._ps = prepared("GET", url, "/api/ps")
        self._tags = prepared("GET", url, "/api/tags")
        self._version = prepared("GET", url, "/api/version")

    def generate(
        self, prompt: Prompt, *, deadline: float, caller: Caller, tell: Tell = silent
    ) -> Reply:
        """Run one generation to its end."""
        endpoint = self._chat if prompt.messages else self._generate
        request = filled(endpoint, bodies.generation(prompt))
        exchange = self._exchange(_GENERATION, deadline)
        with exchange, caller.when_gone(exchange.hang_up):
            sent = time.monotonic()
            answer = self._send(exchange, request)
            if answer.status != 200:
                raise replies.refused_generation(
                    self._refusal(exchange, answer),
                    tag=prompt.spec.tag,
                    with_schema=prompt.format is not None,
                )
            pieces = exchange.pieces(at_most=self._max_reply_bytes)
            steps = generation(pieces, sent=sent, tell=tell)
            reply = self._relay.run(steps, exchange.source)
            exchange.finish(pieces)
            return reply

    def embed(
        self,
        spec: ModelSpec,
        texts: Sequence[str],
        *,
        dimensions: int | None,
        deadline: float,
        caller: Caller,
    ) -> Vectors:
        """Make a vector of each text, of some at a time."""
        made = embedding.joined(
            self._embed_some(batch, spec, dimensions, deadline, caller)
            for batch in embedding.batches(texts)
        )
        embedding.check_length(made, tag=spec.tag, dimensions=dimensions)
        return made

    def _embed_some(
        self,
        batch: Batch,
        spec: ModelSpec,
        dimensions: int | None,
        deadline: float,
        caller: Caller,
    ) -> Vectors:
        request = filled(self._embed, bodies.embedding(spec, batch.texts, dimensions))
        exchange = self._exchange(_EMBEDDING, deadline)
        with exchange, caller.when_gone(exchange.hang_up):
            answer = self._send(exchange, request)
            if answer.status == 200:
                whole = b"".join(exchange.pieces(at_most=self._max_reply_bytes))
                return embedding.vectors(whole, number=len(batch.texts))
            no = self._refusal(exchange, answer)
        context_length = partial(self._context_length, spec.tag)
        raise embedding.refused(no, batch, tag=spec.tag, context_length=context_length)

    def load(self, spec: ModelSpec, *, deadline: float) -> None:
        """Load and wait until ready."""
        said_done = partial(replies.done, otherwise=LoadFailed)
        try:
            self._load(spec, deadline, filled(self._generate, bodies.load(spec)), said_done)
        except NotCapable:
            # A model that writes no text is loaded by the one thing it can do.
            by_embedding = filled(self._embed, bodies.embedding(spec, ()))
            self._load(spec, deadline, by_embedding, embedding.loaded)

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
                raise replies.refused_load(self._refusal(exchange, answer), tag=spec.tag)
            check(exchange.pieces(at_most=self._max_reply_bytes))

    def unload(self, name: str) -> None:
        """Ask for the model to leave memory. What is not even pulled has left it."""
        try:
            answer = self._ask(filled(self._generate, bodies.unload(name)), name)
        except ModelNotPulled:
            return
        replies.done([answer], otherwise=RuntimeReplyInvalid)

    def loaded(self) -> list[LoadedModel]:
        """The models in memory; those still loading are not listed."""
        return replies.loaded(self._ask(self._ps))

    def pulled(self) -> list[PulledModel]:
        """The models on disk."""
        return replies.pulled(self._ask(self._tags))

    def version(self) -> str:
        """What runs, such as "ollama 0.33.0"."""
        return replies.version(self._ask(self._version))

    def card(self, name: str) -> ModelCard:
        """What the runtime knows of one model."""
        return replies.card(self._ask(filled(self._show, {"model": name}), name))

    def pull(self, name: str, *, deadline: float, caller: Caller) -> Iterator[PullProgress]:
        """Fetch a model onto the runtime's disk, telling how it goes."""
        exchange = self._exchange(_PULL, deadline)
        with exchange, caller.when_gone(exchange.hang_up):
            answer = self._send(exchange, filled(self._pull, {"model": name, "stream": True}))
            if answer.status != 200:
                raise pulling.refused(self._refusal(exchange, answer), tag=name)
            pieces = exchange.pieces()
            yield from pulling.progress(pieces)
            exchange.finish(pieces)

    def shut(self) -> None:
        """End all that is under way, and whatever still comes, with ShuttingDown."""
        self._under_way.end(
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
                raise replies.refused(self._refusal(exchange, answer), tag=name)
            return b"".join(exchange.pieces(at_most=self._max_reply_bytes))

    def _exchange(self, errand: Errand, deadline: float) -> Exchange:
        return Exchange(
            errand,
            where=self._where,
            watch=self._watch,
            deadline=deadline,
            under_way=self._under_way,
        )

    def _send(self, exchange: Exchange, request: requests.PreparedRequest) -> HTTPResponse:
        try:
            answer = self._send_once(exchange, request)
        except requests.ConnectionError:
            if not exchange.hit_a_stale_connection:
                raise
            exchange.begin_again()
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

    def _refusal(self, exchange: Exchange, answer: HTTPResponse) -> replies.Refusal:
        return replies.refusal(
            answer.status,
            body=b"".join(exchange.pieces(at_most=self._max_reply_bytes)),
            retry_after=answer.headers.get("Retry-After"),
        )
