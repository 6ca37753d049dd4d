"""Ollama as the runtime: the client of its HTTP API."""

from mes.ollama.client import OllamaRuntime

__all__ = ["OllamaRuntime"]
