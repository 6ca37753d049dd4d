"""Faults that the fake runtime can be configured for.

A fault is `{"kind", "stage", "model", "times", ...}`. Stages: version, tags, ps, show, pull,
load, unload, generate, embed; without one, any. Kinds that replace the answer: `hang`, `error`
(status, text), `reset`, `nonsense` (text). Kinds within a stream, with the number of tokens before
it in `after`: `cut` (no `done`), `error_line` (text), `silence`, `tear` (half a chunk).

A prompt that begins with "misbehave: " names a script, which then answers on the connection. So
each of many simultaneous clients can provoke a fault of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.fake_ollama.connection import ClientGone, Connection, chunk
from tests.support.fake_ollama.generate_request import GenerateRequest
from tests.support.fake_ollama.responses import ErrorResponse

Fault = dict[str, Any]

Script = Callable[[Connection, GenerateRequest], None]
"""Answers on the connection, or raises `ClientGone` to close it."""

_SCRIPT_PREFIX = "misbehave: "


class Faults:
    """The faults that are still to happen; with a `mode` other than "ok", every request fails."""

    def __init__(self) -> None:
        self.mode = "ok"
        self.planned: list[Fault] = []

    def apply(self, stage: str, model: str, connection: Connection) -> Fault:
        """Apply the next fault for `stage` and `model`; return a fault within a stream.

        Raise `ErrorResponse` or `ClientGone` for a fault that replaces the answer.
        """
        fault = self._take(stage, model)
        match fault.get("kind"):
            case "hang":
                connection.wait_for_disconnect()
            case "error":
                raise ErrorResponse(fault.get("status", 500), fault.get("text", "out of order"))
            case "reset":
                connection.reset()
                raise ClientGone
            case "nonsense":
                connection.answer(200, fault.get("text", "<html>").encode())
                raise ClientGone
        return fault

    def _take(self, stage: str, model: str) -> Fault:
        if self.mode in ("hang", "error", "reset"):
            return {"kind": self.mode}
        for fault in self.planned:
            matches = fault.get("stage", stage) == stage and fault.get("model", model) == model
            if matches and fault.get("times", 1) > 0:
                fault["times"] = fault.get("times", 1) - 1
                return fault
        return {}


def interrupt_stream(fault: Fault, connection: Connection) -> None:
    """Interrupt a stream with the fault. Always raise `ClientGone` to close the connection."""
    match fault["kind"]:
        case "cut":
            connection.end()
        case "error_line":
            connection.line({"error": fault.get("text", "unexpected EOF")})
            connection.end()
        case "silence":
            connection.wait_for_disconnect()
        case "tear":
            connection.send(chunk(b"x" * 100)[:50])
    raise ClientGone


def prompt_for(script: str) -> str:
    """Return the prompt that selects the script."""
    return _SCRIPT_PREFIX + script


def script_named(prompt: str) -> str:
    """Return the name of the script that the prompt selects, "" if it selects none."""
    first_line = prompt.split("\n", 1)[0]
    return first_line.removeprefix(_SCRIPT_PREFIX) if first_line.startswith(_SCRIPT_PREFIX) else ""
