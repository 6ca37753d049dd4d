"""What each route of Ollama's API does here: JSON in, JSON, lines or nothing out."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from . import describe, embed, generate, host, names, requests
from .caller import Caller
from .errors import ModelNotFound
from .pool import Pool
from .pull import pull
from .requests import Body, Embedding
from .store import Model, Store

Json = dict[str, Any]
Lines = Generator[Json, None, None]
Answer = Json | Lines | str | None
"""An object, NDJSON lines, plain text, or an empty body"""


class Api:
    def __init__(self, store: Store, pool: Pool) -> None:
        self._store = store
        self._pool = pool

    def root(self, body: Body, caller: Caller) -> str:
        return "Ollama is running"

    def version(self, body: Body, caller: Caller) -> Json:
        return {"version": host.engine_version(), "runtime": "mes-embedded"}

    def tags(self, body: Body, caller: Caller) -> Json:
        return {"models": [describe.tag(model) for model in self._store.models()]}

    def ps(self, body: Body, caller: Caller) -> Json:
        return {"models": [describe.running(loaded) for loaded in self._pool.running()]}

    def show(self, body: Body, caller: Caller) -> Json:
        name = names.parse(requests.model_name(body))
        return describe.show(self._store.find(str(name)))

    def delete(self, body: Body, caller: Caller) -> None:
        model = self._store.find(requests.model_name(body))
        self._store.delete(model)
        self._pool.unload(model)

    def copy(self, body: Body, caller: Caller) -> None:
        self._store.copy(body.get("source"), body.get("destination"))

    def pull(self, body: Body, caller: Caller) -> Answer:
        events = pull(requests.model_name(body), self._store)
        if requests.wants_stream(body):
            return events
        return list(events)[-1]

    def generate(self, body: Body, caller: Caller) -> Answer:
        model = self._store.find(requests.generate_name(body))
        return self._generate(requests.parse_generate(body), model, caller)

    def chat(self, body: Body, caller: Caller) -> Answer:
        model = self._store.find(requests.required_name(body))
        return self._generate(requests.parse_chat(body), model, caller)

    def embed(self, body: Body, caller: Caller) -> Json:
        model = self._find_to_embed(requests.generate_name(body))
        return self._embed(requests.parse_embed(body), model, caller)

    def embeddings(self, body: Body, caller: Caller) -> Json:
        model = self._find_to_embed(requests.required_name(body))
        vectors = self._embed(requests.parse_embeddings(body), model, caller)["embeddings"]
        return {"embedding": vectors[0] if vectors else []}

    def _generate(self, request: requests.Generation, model: Model, caller: Caller) -> Answer:
        generate.check(request, model)
        if request.is_empty:
            return generate.load_or_unload(request, model, self._pool, caller)
        lines = generate.lines(request, model, self._pool, caller)
        return lines if request.stream else generate.folded(lines)

    def _embed(self, request: Embedding, model: Model, caller: Caller) -> Json:
        embed.check(model)
        return embed.embed(request, model, self._pool, caller)

    def _find_to_embed(self, name: str) -> Model:
        try:
            return self._store.find(name)
        except ModelNotFound as exc:
            raise ModelNotFound(f'model "{name}" not found, try pulling it first') from exc


Call = Callable[[Api, Body, Caller], Answer]
ROUTES: dict[str, dict[str, Call]] = {
    "/": {"GET": Api.root, "HEAD": Api.root},
    "/api/version": {"GET": Api.version, "HEAD": Api.version},
    "/api/tags": {"GET": Api.tags, "HEAD": Api.tags},
    "/api/ps": {"GET": Api.ps},
    "/api/show": {"POST": Api.show},
    "/api/generate": {"POST": Api.generate},
    "/api/chat": {"POST": Api.chat},
    "/api/embed": {"POST": Api.embed},
    "/api/embeddings": {"POST": Api.embeddings},
    "/api/pull": {"POST": Api.pull},
    "/api/copy": {"POST": Api.copy},
    "/api/delete": {"DELETE": Api.delete},
}
