"""Checks of a conversation that Ollama's parser and its runner make."""

from __future__ import annotations

from typing import Any

from tests.support.fake_ollama.responses import ErrorResponse, runner_error


def check_messages(messages: list[dict[str, Any]]) -> None:
    """Raise `ErrorResponse` for arguments that are not an object, and for two prefills."""
    calls = [call for message in messages for call in message.get("tool_calls") or ()]
    if any(isinstance(call["function"].get("arguments"), str) for call in calls):
        text = "Value looks like object, but can't find closing '}' symbol"
        raise ErrorResponse(400, text)
    if [message.get("role") for message in messages[-2:]] == ["assistant", "assistant"]:
        text = "Cannot have 2 or more assistant messages at the end of the list."
        raise runner_error(text, "invalid_request_error")
