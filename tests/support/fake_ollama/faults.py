"""What the fake runtime was told to do wrong.

A fault is `{"kind", "stage", "model", "times", ...}`. Stages: version, tags, ps, show, pull,
load, unload, generate, embed; without one, any. Kinds instead of an answer: `hang`, `error`
(status, text), `reset`, `nonsense` (text); within a stream, `after` so many tokens: `cut` (no
`done`), `error_line` (text), `silence`, `tear` (half a chunk).

A prompt that begins with "misbehave: " names a script, which then has the connection to itself:
many clients at a time can each provoke what they like.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.fake_ollama.answers import Refused
from tests.support.fake_ollama.ask import Ask
from tests.support.fake_ollama.wire import Connection, Gone, chunk

Fault = dict[str, Any]

Script = Callable[[Connection, Ask], None]
"""Answers in its own way, or raises Gone to close the connection."""

_ASKED_FOR = "misbehave: "


class Faults:
    """The faults that are still to happen; with a `mode`, everything fails in that way."""

    def __init__(self) -> None:
        self.mode = "ok"
        self.planned: list[Fault] = []

    def strike(self, stage: str, model: str, connection: Connection) -> Fault:
        """Fail as planned instead of answering; a fault within the stream is handed back."""
        fault = self._take(stage, model)
        match fault.get("kind"):
            case "hang":
                connection.wait_for_hang_up()
            case "error":
                raise Refused(fault.get("status", 500), fault.get("text", "out of order"))
            case "reset":
                connection.reset()
                raise Gone
            case "nonsense":
                connection.answer(200, fault.get("text", "<html>").encode())
                raise Gone
        return fault

    def _take(self, stage: str, model: str) -> Fault:
        if self.mode in ("hang", "error", "reset"):
            return {"kind": self.mode}
        for fault in self.planned:
            fits = fault.get("stage", stage) == stage and fault.get("model", model) == model
            if fits and fault.get("times", 1) > 0:
                fault["times"] = fault.get("times", 1) - 1
                return fault
        return {}


def break_off(fault: Fault, connection: Connection) -> None:
    """End a stream that has begun as the fault says. Raises Gone: the connection is no more."""
    match fault["kind"]:
        case "cut":
            connection.end()
        case "error_line":
            connection.line({"error": fault.get("text", "unexpected EOF")})
            connection.end()
        case "silence":
            connection.wait_for_hang_up()
        case "tear":
            connection.send(chunk(b"x" * 100)[:50])
    raise Gone


def prompt_for(script: str) -> str:
    """The prompt that provokes it."""
    return _ASKED_FOR + script


def script_named(prompt: str) -> str:
    """The name of the script that the prompt asks for, if any."""
    first = prompt.split("\n", 1)[0]
    return first.removeprefix(_ASKED_FOR) if first.startswith(_ASKED_FOR) else ""
