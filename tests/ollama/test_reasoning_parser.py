"""Voices: reasoning and answer told apart, wherever the pieces of the text are cut."""

from __future__ import annotations

import gc
import weakref

import pytest

from mes.domain import Event, Logprob, Thought, Token, no_op
from mes.ollama.generation import ReasoningParser

TEXTS = {
    "Paris.": ("", "Paris."),
    " Paris ": ("", " Paris "),
    "<think>Well.</think>Paris.": ("Well.", "Paris."),
    "\n<think>\nWell, <b> or </b>.\n</think>\n\n Paris.": ("Well, <b> or </b>.", "Paris."),
    "<think>never closed </thi": ("never closed </thi", ""),
    "<thinking>Paris": ("", "<thinking>Paris"),
    "<thi": ("", "<thi"),
    "a <think> in the middle </think>": ("", "a <think> in the middle </think>"),
    "<think></think>": ("", ""),
    "<think></think>x</think>": ("", "x</think>"),
    "  \n ": ("", "  \n "),
    "": ("", ""),
}


def heard(*pieces: str) -> tuple[tuple[str, str], list[Event]]:
    told: list[Event] = []
    parser = ReasoningParser(lambda *events: told.extend(events))
    for piece in pieces:
        parser.feed(piece)
    said = parser.finish()
    parser.emit_pending()
    return said, told


def joined(told: list[Event], kind: type) -> str:
    return "".join(event.text for event in told if isinstance(event, kind))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_the_voices_are_told_apart_however_the_text_is_cut(text, size):
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    said, told = heard(*pieces)
    assert said == TEXTS[text]
    assert joined(told, Token) == said[1]
    assert joined(told, Thought).strip() == said[0]


def test_a_piece_is_told_as_soon_as_it_is_known_whose_it_is():
    told: list[tuple[Event, ...]] = []
    parser = ReasoningParser(lambda *events: told.append(events))
    for piece in ("<think>", "So", " it is", "</think>", " ", "Pa", "ris"):
        parser.feed(piece)
        parser.emit_pending()
    assert told == [(Thought("So"),), (Thought(" it is"),), (Token("Pa"),), (Token("ris"),)]


def test_what_was_said_since_the_last_time_is_told_at_once():
    told: list[tuple[Event, ...]] = []
    parser = ReasoningParser(lambda *events: told.append(events))
    parser.feed_reasoning("Well.")
    parser.feed("Paris")
    parser.emit_pending()
    parser.emit_pending()
    assert told == [(Thought("Well."), Token("Paris"))]


def test_reasoning_that_the_runtime_tells_apart_stays_apart():
    parser = ReasoningParser(no_op)
    parser.feed_reasoning("Well.")
    parser.feed("Paris")
    assert parser.finish() == ("Well.", "Paris")


def test_blanks_without_end_are_an_answer():
    said, told = heard(*[" "] * 5000)
    assert said == ("", " " * 5000)
    assert len(told) > 3000


def test_probabilities_go_with_the_answer_and_never_with_the_reasoning():
    told: list[Event] = []
    parser = ReasoningParser(lambda *events: told.extend(events))
    for piece in ("<think>", "So", "</think>", " ", "Pa", "ris"):
        parser.add_logprobs([Logprob(piece, -0.5, ())])
        parser.feed(piece)
    parser.emit_pending()
    assert [each.token for each in parser.logprobs][-2:] == ["Pa", "ris"]
    assert "So" not in [each.token for each in parser.logprobs]
    in_pieces = [each for event in told if isinstance(event, Token) for each in event.logprobs]
    assert tuple(in_pieces) == parser.logprobs


@pytest.mark.parametrize("text", TEXTS)
def test_what_was_said_is_freed_as_soon_as_nobody_holds_it(text):
    gc.disable()
    try:
        parser = ReasoningParser(lambda _: None)
        parser.feed(text)
        parser.finish()
        alive = weakref.ref(parser)
        del parser
        assert alive() is None
    finally:
        gc.enable()
