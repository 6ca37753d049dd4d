"""The runtime's faults: each as it meets a caller who waits, and one who reads along."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from tests.faults.client import Heard
from tests.faults.fault import Fault
from tests.faults.misbehaviours import MISBEHAVIOURS, Misbehaviour
from tests.faults.scripts import echo, no_op, tells
from tests.ollama.scripted import STREAM, chunk, token

SILENCE, ECHO, LONG, WORD = "silence", "echo", "a long answer", "a word, and silence"
SCRIPTS = {
    **{each.name: each.script for each in MISBEHAVIOURS},
    SILENCE: no_op(),
    ECHO: echo,
    LONG: tells("x" * 4_000_000),
    WORD: no_op(STREAM + chunk(token("Hel"))),
}
"""What a prompt can ask the fake runtime for."""

# Of these a reader has had some text before they go wrong; of the others the status tells.
AFTER_SOME_TEXT = {
    "some text, then silence",
    "a length that is too long",
    "half of a stated length",
    "closed between chunks",
    "closed inside a chunk",
    "reset after some text",
    "never done",
    "an error in the stream",
    "half a line of JSON",
}


def waited_for(its: Misbehaviour) -> Fault:
    return Fault(its.case, its.name, its.provoke, its.expected)


def read_along(its: Misbehaviour) -> Fault:
    late = its.name in AFTER_SOME_TEXT
    expected = replace(its.expected, also=_fails_after_some_text) if late else its.expected
    return Fault(its.case, f"{its.name}, streamed", partial(its.provoke, stream=True), expected)


def _fails_after_some_text(heard: Heard) -> bool:
    kinds = [each["type"] for each in heard.lines if each["type"] != "loading"]
    return kinds == ["token", "error"]


FAULTS = [*map(waited_for, MISBEHAVIOURS), *map(read_along, MISBEHAVIOURS)]
