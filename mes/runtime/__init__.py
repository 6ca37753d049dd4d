"""Who runs the models."""

from mes.runtime.ollama import OllamaRuntime

__all__ = ["OllamaRuntime"]
