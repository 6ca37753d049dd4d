"""Descriptions of a model in answers: in the list, in full, and as a running one."""

from __future__ import annotations

from typing import Any

from mes.embedded import durations
from mes.embedded.model_pool import PooledModel
from mes.embedded.model_store import StoredModel

Json = dict[str, Any]
HIDDEN_METADATA = ("general.name", "tokenizer.chat_template")


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
