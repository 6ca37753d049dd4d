"""The runtime behind Ollama's HTTP API, asked through `requests`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import orjson
import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPResponse
from urllib3.util import Url, parse_url

from mes.domain import (
    Caller,
    LoadedModel,
    Message,
    ModelCard,
    ModelSpec,
    Prompt,
    PulledModel,
    PullProgress,
    Reply,
    Tell,
    ToolCall,
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
from mes.runtime import embedding, pulling, replies
from mes.runtime.connections import pool
from mes.runtime.embedding import Batch
from mes.runtime.generation import generation
from mes.runtime.wire import Errand, Exchange, UnderWay
from mes.watch import Watch

# MES decides what stays in memory, not Ollama's timer.
_KEEP_FOREVER = -1
_UNLOAD_NOW = 0

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
        pool_size: int,
        connect_timeout_seconds: float = 2.0,
        reply_timeout_seconds: float = 5.0,
        max_reply_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        url = parse_url(host if "://" in host else f"http://{host}")
        self._where = url.netloc or host  # without a password, which `host` may hold
        self._watch = watch
        self._connect_timeout_seconds = connect_timeout_seconds
        self._reply_timeout_seconds = reply_timeout_seconds
        self._max_reply_bytes = max_reply_bytes
        self._under_way = UnderWay()
        self._adapter = _Adapter(pool(url, size=pool_size))
        self._generate = _prepared("POST", url, "/api/generate")
        self._chat = _prepared("POST", url, "/api/chat")
        self._embed = _prepared("POST", url, "/api/embed")
        self._show = _prepared("POST", url, "/api/show")
        self._pull = _prepared("POST", url, "/api/pull")
        self._ps = _prepared("GET", url, "/api/ps")
        self._tags = _prepared("GET", url, "/api/tags")
        self._version = _prepared("GET", url, "/api/version")

    def generate(
        self, prompt: Prompt, *, deadline: float, caller: Caller, tell: Tell = silent
    ) -> Reply:
        """Run one generation to its end."""
        endpoint = self._chat if prompt.messages else self._generate
        request = _filled(endpoint, _generation(prompt))
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
            reply = generation(pieces, sent=sent, tell=tell)
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
        request = _filled(self._embed, _embedding(spec, batch.texts, dimensions))
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
            self._load(spec, deadline, _filled(self._generate, _load(spec)), said_done)
        except NotCapable:
            # A model that writes no text is loaded by the one thing it can do.
            by_embedding = _filled(self._embed, _embedding(spec, ()))
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
        body = {"model": name, "prompt": "", "stream": True, "keep_alive": _UNLOAD_NOW}
        try:
            answer = self._ask(_filled(self._generate, body), name)
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
        return replies.card(self._ask(_filled(self._show, {"model": name}), name))

    def pull(self, name: str, *, deadline: float, caller: Caller) -> Iterator[PullProgress]:
        """Fetch a model onto the runtime's disk, telling how it goes."""
        exchange = self._exchange(_PULL, deadline)
        with exchange, caller.when_gone(exchange.hang_up):
            answer = self._send(exchange, _filled(self._pull, {"model": name, "stream": True}))
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


class _Adapter(HTTPAdapter):
    """An adapter with one pool, which spares a request all that serves many hosts.

    It keeps no cookies and knows no proxies, whatever the environment says.
    """

    def __init__(self, connections: HTTPConnectionPool) -> None:
        super().__init__()
        self._connections = connections

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        return self._connections

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        return request.path_url

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        response = requests.Response()
        response.status_code, response.raw, response.request = resp.status, resp, req
        return response


def _prepared(method: str, url: Url, path: str) -> requests.PreparedRequest:
    """All of a request but its body, prepared once because this costs more than sending it."""
    headers = {
        "User-Agent": "mes",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
    }
    whole = url._replace(path=(url.path or "").rstrip("/") + path).url
    request = requests.Request(method, whole, headers=headers).prepare()
    # A plain dict: these names need no folding, and every request copies it three times.
    vars(request)["headers"] = dict(request.headers)
    return request


def _filled(template: requests.PreparedRequest, body: dict[str, Any]) -> requests.PreparedRequest:
    request = requests.PreparedRequest()
    vars(request).update(vars(template))  # copy() also copies what never changes
    request.body = _encoded(body)
    vars(request)["headers"] = {**template.headers, "Content-Length": str(len(request.body))}
    return request


def _encoded(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body, default=dict)
    except TypeError:
        # orjson knows no numbers beyond 64 bits, but a caller's schema may name one as a bound.
        return json.dumps(body, default=dict).encode()


def _generation(prompt: Prompt) -> dict[str, Any]:
    body = {
        "model": prompt.spec.tag,
        **_words(prompt),
        "stream": True,
        "options": prompt.options,
        "keep_alive": _KEEP_FOREVER,
        # An over-long prompt is an error, never a silent cut.
        "truncate": False,
        "shift": False,
        "think": prompt.think,
    }
    if prompt.format is not None:
        body["format"] = prompt.format
    if prompt.tools:
        body["tools"] = prompt.tools
    if prompt.top_logprobs is not None:
        body.update(logprobs=True, top_logprobs=prompt.top_logprobs)
    return body


def _words(prompt: Prompt) -> dict[str, Any]:
    if prompt.messages:
        return {"messages": [_turn(message) for message in prompt.messages]}
    words = {"prompt": prompt.text}
    return words if prompt.system is None else {**words, "system": prompt.system}


def _turn(message: Message) -> dict[str, Any]:
    turn = {
        "role": message.role,
        "content": message.content,
        "images": message.images,
        "tool_calls": [_call(call) for call in message.tool_calls],
        "tool_call_id": message.tool_call_id,
        "tool_name": message.tool_name,
    }
    return {name: value for name, value in turn.items() if value or name == "content"}


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}}


def _embedding(
    spec: ModelSpec, texts: Sequence[str], dimensions: int | None = None
) -> dict[str, Any]:
    """What vectors are asked for with; without texts, the model is loaded and that is all."""
    body = {
        "model": spec.tag,
        "input": texts,
        "options": spec.load_options,
        "keep_alive": _KEEP_FOREVER,
        "truncate": False,
    }
    return body if dimensions is None else {**body, "dimensions": dimensions}


def _load(spec: ModelSpec) -> dict[str, Any]:
    return {
        "model": spec.tag,
        "prompt": "",
        "stream": True,
        "options": spec.load_options,
        "keep_alive": _KEEP_FOREVER,
        "shift": False,  # part of the loaded model, as all generations send it
    }
