"""The routes of Ollama's API, and the descriptions of models in its answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mes.embedded import (
    durations,
    embeddings,
    engine,
    generation,
    model_store,
    request_parsing,
    tokens,
)
from mes.embedded.api_errors import UnknownModel
from mes.embedded.client_connection import ClientConnection
from mes.embedded.download import pull_model
from mes.embedded.generation import ResponseLines
from mes.embedded.model_pool import ModelPool, PooledModel
from mes.embedded.model_store import ModelStore, StoredModel
from mes.embedded.request_parsing import Body, EmbedRequest, GenerateRequest

Json = dict[str, Any]
Answer = Json | ResponseLines | str | None
"""A JSON object, NDJSON lines, plain text, or an empty body."""

CHANGES_MODELS = ("/api/pull", "/api/copy", "/api/delete")
HIDDEN_METADATA = ("general.name", "tokenizer.chat_template")


class OllamaApi:
    """The routes over a store of models and the pool of loaded ones.

    Each loaded model has `slots` for simultaneous requests.

    Each route takes the parsed JSON body and the connection of the client, and returns the content
    of the answer. Each raises a `RuntimeFailure` with the status and the message to answer, or
    `ClientLeft`.
    """

    def __init__(self, store: ModelStore, pool: ModelPool, *, slots: int) -> None:
        self._store = store
        self._pool = pool
        self._slots = slots

    def root(self, body: Body, client: ClientConnection) -> str:
        return "Ollama is running"

    def version(self, body: Body, client: ClientConnection) -> Json:
        return {"version": engine.engine_version(), "runtime": "mes-embedded"}

    def tags(self, body: Body, client: ClientConnection) -> Json:
        slots = {"slots": self._slots}  # Ollama does not report them
        return {"models": [{**describe_tag(model), **slots} for model in self._store.models()]}

    def ps(self, body: Body, client: ClientConnection) -> Json:
        running = self._pool.running()
        return {"models": [describe_running(loaded) for loaded in running]}

    def show(self, body: Body, client: ClientConnection) -> Json:
        name = model_store.parse_name(request_parsing.model_or_name(body))
        return describe_model(self._store.find(str(name)))

    def delete(self, body: Body, client: ClientConnection) -> None:
        model = self._store.find(request_parsing.model_or_name(body))
        self._store.delete(model)
        self._pool.unload(model)

    def copy(self, body: Body, client: ClientConnection) -> None:
        self._store.copy(body.get("source"), body.get("destination"))

    def pull(self, body: Body, client: ClientConnection) -> Answer:
        events = pull_model(request_parsing.model_or_name(body), self._store)
        if request_parsing.wants_stream(body):
            return events
        return list(events)[-1]

    def generate(self, body: Body, client: ClientConnection) -> Answer:
        model = self._store.find(request_parsing.model_or_404(body))
        return self._generate(request_parsing.parse_generate(body), model, client)

    def chat(self, body: Body, client: ClientConnection) -> Answer:
        model = self._store.find(request_parsing.model_or_400(body))
        return self._generate(request_parsing.parse_chat(body), model, client)

    def detokenize(self, body: Body, client: ClientConnection) -> Json:
        """Not a route of Ollama: the text of token ids."""
        model = self._store.find(request_parsing.model_or_400(body))
        request = request_parsing.parse_detokenize(body)
        text = tokens.detokenize(request, model, self._pool, client)
        return {"model": request.model, "text": text}

    def embed(self, body: Body, client: ClientConnection) -> Json:
        model = self._find_to_embed(request_parsing.model_or_404(body))
        return self._embed(request_parsing.parse_embed(body), model, client)

    def embeddings(self, body: Body, client: ClientConnection) -> Json:
        """The older route: one text, one vector."""
        model = self._find_to_embed(request_parsing.model_or_400(body))
        vectors = self._embed(request_parsing.parse_embeddings(body), model, client)["embeddings"]
        return {"embedding": vectors[0] if vectors else []}

    def _generate(
        self, request: GenerateRequest, model: StoredModel, client: ClientConnection
    ) -> Answer:
        generation.check_generation_model(request, model)
        if request.is_empty:
            return generation.load_or_unload(request, model, self._pool, client)
        lines = generation.generation_lines(request, model, self._pool, client)
        return lines if request.stream else generation.join_lines(lines)

    def _embed(self, request: EmbedRequest, model: StoredModel, client: ClientConnection) -> Json:
        embeddings.check_embedding_model(model)
        return embeddings.embed_texts(request, model, self._pool, client)

    def _find_to_embed(self, name: str) -> StoredModel:
        try:
            return self._store.find(name)
        except UnknownModel as exc:
            raise UnknownModel(f'model "{name}" not found, try pulling it first') from exc


Route = Callable[[OllamaApi, Body, ClientConnection], Answer]
ROUTES: dict[str, dict[str, Route]] = {
    "/": {"GET": OllamaApi.root, "HEAD": OllamaApi.root},
    "/api/version": {"GET": OllamaApi.version, "HEAD": OllamaApi.version},
    "/api/tags": {"GET": OllamaApi.tags, "HEAD": OllamaApi.tags},
    "/api/ps": {"GET": OllamaApi.ps},
    "/api/show": {"POST": OllamaApi.show},
    "/api/generate": {"POST": OllamaApi.generate},
    "/api/chat": {"POST": OllamaApi.chat},
    "/api/detokenize": {"POST": OllamaApi.detokenize},
    "/api/embed": {"POST": OllamaApi.embed},
    "/api/embeddings": {"POST": OllamaApi.embeddings},
    "/api/pull": {"POST": OllamaApi.pull},
    "/api/copy": {"POST": OllamaApi.copy},
    "/api/delete": {"DELETE": OllamaApi.delete},
}


def describe_tag(model: StoredModel) -> Json:
    """Return the entry of /api/tags."""
    header = model.header
    lengths = {"context_length": header.context_length, "embedding_length": header.embedding_length}
    return {
        "name": str(model.name),
        "model": str(model.name),
        "modified_at": durations.timestamp(model.modified_ns),
        "size": model.size,
        "digest": model.digest,
        "details": {**_details(model), **lengths},
        "capabilities": model.capabilities,
    }


def describe_model(model: StoredModel) -> Json:
    """Return the answer of /api/show."""
    header = model.header
    info = {key: value for key, value in header.metadata.items() if key not in HIDDEN_METADATA}
    return {
        "license": str(header.metadata.get("general.license", "")),
        "modelfile": f"FROM {model.path}",
        "template": header.chat_template,
        "details": _details(model),
        "model_info": {**info, "general.parameter_count": header.parameter_count},
        "capabilities": model.capabilities,
        "modified_at": durations.timestamp(model.modified_ns),
    }


def describe_running(loaded: PooledModel) -> Json:
    """Return the entry of /api/ps."""
    model = loaded.model
    resident_bytes = loaded.engine.resident_bytes if loaded.engine else 0
    return {
        "name": str(model.name),
        "model": str(model.name),
        "size": resident_bytes or model.size,
        "digest": model.digest,
        "details": _details(model),
        "expires_at": durations.timestamp_after(loaded.expires_in),
        "size_vram": 0,
        "context_length": loaded.launch.context_length,
    }


def _details(model: StoredModel) -> Json:
    family = model.header.architecture
    return {
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": [family],
        "parameter_size": _format_count(model.header.parameter_count),
        "quantization_level": model.header.quantization,
    }


def _format_count(count: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= size:
            return f"{count / size:.{1 if unit == 'B' else 2}f}{unit}"
    return str(count)
