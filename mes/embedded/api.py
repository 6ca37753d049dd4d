"""What each route of Ollama's API does here: JSON in, JSON, lines or nothing out."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from mes.embedded import (
    engine_requirements,
    generation,
    model_description,
    model_store,
    request_parsing,
)
from mes.embedded.api_errors import UnknownModel
from mes.embedded.download import pull_model
from mes.embedded.model_pool import ModelPool
from mes.embedded.model_store import ModelStore, StoredModel
from mes.embedded.request_parsing import Body, EmbedRequest
from mes.embedded.slots import ClientConnection

Json = dict[str, Any]
Lines = Generator[Json, None, None]
Answer = Json | Lines | str | None
"""An object, NDJSON lines, plain text, or an empty body"""


class OllamaApi:
    def __init__(self, store: ModelStore, pool: ModelPool) -> None:
        self._store = store
        self._pool = pool

    def root(self, body: Body, caller: ClientConnection) -> str:
        return "Ollama is running"

    def version(self, body: Body, caller: ClientConnection) -> Json:
        return {"version": engine_requirements.engine_version(), "runtime": "mes-embedded"}

    def tags(self, body: Body, caller: ClientConnection) -> Json:
        return {"models": [model_description.describe_tag(model) for model in self._store.models()]}

    def ps(self, body: Body, caller: ClientConnection) -> Json:
        return {
            "models": [
                model_description.describe_running(loaded) for loaded in self._pool.running()
            ]
        }

    def show(self, body: Body, caller: ClientConnection) -> Json:
        name = model_store.parse_name(request_parsing.model_name(body))
        return model_description.describe_model(self._store.find(str(name)))

    def delete(self, body: Body, caller: ClientConnection) -> None:
        model = self._store.find(request_parsing.model_name(body))
        self._store.delete(model)
        self._pool.unload(model)

    def copy(self, body: Body, caller: ClientConnection) -> None:
        self._store.copy(body.get("source"), body.get("destination"))

    def pull(self, body: Body, caller: ClientConnection) -> Answer:
        events = pull_model(request_parsing.model_name(body), self._store)
        if request_parsing.wants_stream(body):
            return events
        return list(events)[-1]

    def generate(self, body: Body, caller: ClientConnection) -> Answer:
        model = self._store.find(request_parsing.generate_name(body))
        return self._generate(request_parsing.parse_generate(body), model, caller)

    def chat(self, body: Body, caller: ClientConnection) -> Answer:
        model = self._store.find(request_parsing.required_name(body))
        return self._generate(request_parsing.parse_chat(body), model, caller)

    def embed(self, body: Body, caller: ClientConnection) -> Json:
        model = self._find_to_embed(request_parsing.generate_name(body))
        return self._embed(request_parsing.parse_embed(body), model, caller)

    def embeddings(self, body: Body, caller: ClientConnection) -> Json:
        model = self._find_to_embed(request_parsing.required_name(body))
        vectors = self._embed(request_parsing.parse_embeddings(body), model, caller)["embeddings"]
        return {"embedding": vectors[0] if vectors else []}

    def _generate(
        self, request: request_parsing.GenerateRequest, model: StoredModel, caller: ClientConnection
    ) -> Answer:
        generation.check_generation_model(request, model)
        if request.is_empty:
            return generation.load_or_unload(request, model, self._pool, caller)
        lines = generation.generation_lines(request, model, self._pool, caller)
        return lines if request.stream else generation.fold_lines(lines)

    def _embed(self, request: EmbedRequest, model: StoredModel, caller: ClientConnection) -> Json:
        generation.check_embedding_model(model)
        return generation.embed_texts(request, model, self._pool, caller)

    def _find_to_embed(self, name: str) -> StoredModel:
        try:
            return self._store.find(name)
        except UnknownModel as exc:
            raise UnknownModel(f'model "{name}" not found, try pulling it first') from exc


Call = Callable[[OllamaApi, Body, ClientConnection], Answer]
ROUTES: dict[str, dict[str, Call]] = {
    "/": {"GET": OllamaApi.root, "HEAD": OllamaApi.root},
    "/api/version": {"GET": OllamaApi.version, "HEAD": OllamaApi.version},
    "/api/tags": {"GET": OllamaApi.tags, "HEAD": OllamaApi.tags},
    "/api/ps": {"GET": OllamaApi.ps},
    "/api/show": {"POST": OllamaApi.show},
    "/api/generate": {"POST": OllamaApi.generate},
    "/api/chat": {"POST": OllamaApi.chat},
    "/api/embed": {"POST": OllamaApi.embed},
    "/api/embeddings": {"POST": OllamaApi.embeddings},
    "/api/pull": {"POST": OllamaApi.pull},
    "/api/copy": {"POST": OllamaApi.copy},
    "/api/delete": {"DELETE": OllamaApi.delete},
}
