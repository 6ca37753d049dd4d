"""Who runs the models."""

from mes.ollama.client import OllamaRuntime

__all__ = ["OllamaRuntime"]
