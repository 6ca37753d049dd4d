"""Contents of Ollama's answers: descriptions of models, times, names and errors."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

from tests.support.fake_ollama.connection import BARE_JSON, JSON
from tests.support.fake_ollama.model import Model

DEFAULT_NUM_CTX = 4096
_NEVER_SECONDS = 292 * 365.25 * 86_400


class ErrorResponse(Exception):
    """Ends a request with an error answer."""

    def __init__(self, status: int, text: str, content_type: str = JSON) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.content_type = content_type


def runner_error(message: str, kind: str, **fields: Any) -> ErrorResponse:
    """Return an error of the runner: Ollama's message is then the runner's JSON."""
    inner = {"code": 400, "message": message, "type": kind, **fields}
    return ErrorResponse(400, json.dumps({"error": inner}, separators=(",", ":")), BARE_JSON)


def with_tag(name: str) -> str:
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def now() -> str:
    """Return the time as Go writes it: with nanoseconds, without trailing zeros."""
    return timestamp(time.time_ns())


def timestamp(nanoseconds: int) -> str:
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    digits = f"{fraction:09d}".rstrip("0")
    return f"{text}.{digits}Z" if digits else f"{text}Z"


def _details(model: Model) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "7.0B",
        "quantization_level": "Q4_K_M",
    }


def describe_tag(name: str, model: Model) -> dict[str, Any]:
    """Return the entry of /api/tags."""
    name = with_tag(name)
    return {
        "name": name,
        "model": name,
        "modified_at": "2026-01-01T00:00:00.123456789Z",
        "size": 4_000_000_000,
        "digest": model.digest,
        "details": {**_details(model), "context_length": 8192, "embedding_length": 4096},
        "capabilities": model.capabilities,
    }


def describe_running(model: Model) -> dict[str, Any]:
    """Return the entry of /api/ps."""
    name = with_tag(model.loaded_as or model.name)
    forever = model.keep_alive_seconds < 0
    seconds = _NEVER_SECONDS if forever else model.keep_alive_seconds
    return {
        "name": name,
        "model": name,
        "size": 4_200_000_000,
        "digest": model.digest,
        "details": _details(model),
        "expires_at": timestamp(time.time_ns() + int(seconds * 1e9)),
        "size_vram": 0,
        "context_length": model.options.get("num_ctx", DEFAULT_NUM_CTX),
    }


def describe_model(model: Model) -> dict[str, Any]:
    """Return the answer of /api/show."""
    return {
        "modelfile": f"FROM {with_tag(model.name)}",
        "parameters": 'stop                           "<|end|>"',
        "template": "{{ .Prompt }}",
        "details": _details(model),
        "model_info": {
            "general.architecture": "llama",
            "general.parameter_count": 7_000_000_000,
            "llama.context_length": 8192,
        },
        "tensors": [],
        "capabilities": model.capabilities,
        "modified_at": "2026-01-01T00:00:00.123456789Z",
    }


def sample(schema: Any) -> Any:
    """Return a value that is valid under a simple schema, like a constrained model's answer."""
    if not isinstance(schema, dict):
        return {}
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type", "object"):
        case "object":
            return {name: sample(nested) for name, nested in schema.get("properties", {}).items()}
        case "array":
            return [sample(schema.get("items"))] * schema.get("minItems", 1)
        case "integer" | "number":
            return schema.get("minimum", 7)
        case "boolean":
            return True
        case "null":
            return None
    return "word"
