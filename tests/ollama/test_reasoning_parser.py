"""ReasoningParser: separates reasoning and answer, wherever the text is divided."""

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


# The prompt ended with the begin tag.
UNOPENED = {
    "Well.</think>Paris.": ("Well.", "Paris."),
    "\nWell.\n</think>\n\n{}": ("Well.", "{}"),
    '{"a": 1}? No.</think>{"a": 2}': ('{"a": 1}? No.', '{"a": 2}'),
    "Well.</think>": ("Well.", ""),
    "</think>Paris.": ("", "Paris."),
    "Well.</think>Paris.</think>": ("Well.", "Paris.</think>"),
    '{"a": "It ends with </think>."}': ("", '{"a": "It ends with </think>."}'),
    "It ends with `</think>`.": ("", "It ends with `</think>`."),
}


def parse(*pieces: str) -> tuple[tuple[str, str], list[Event]]:
    """Return the reasoning with the answer, and the events."""
    events: list[Event] = []
    parser = ReasoningParser(lambda *new: events.extend(new))
    for piece in pieces:
        parser.feed(piece)
    texts = parser.finish()
    parser.emit_pending()
    return texts, events


def joined(events: list[Event], kind: type) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_reasoning_and_answer_are_separated_however_the_text_is_divided(text, size):
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    (reasoning, answer), events = parse(*pieces)
    assert (reasoning, answer) == TEXTS[text]
    assert joined(events, Token) == answer
    assert joined(events, Thought).strip() == reasoning


@pytest.mark.parametrize("text", UNOPENED)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_reasoning_without_a_begin_tag_is_separated_at_its_end(text, size):
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    texts, events = parse(*pieces)
    assert texts == UNOPENED[text]
    assert joined(events, Token) == text


def test_probabilities_of_reasoning_without_a_begin_tag_are_left_out():
    parser = ReasoningParser(no_op)
    for piece in ("So", "</think>", "\n", "Pa", "ris"):
        parser.add_logprobs([Logprob(piece, -0.5, ())])
        parser.feed(piece)
    assert parser.finish() == ("So", "Paris")
    assert [each.token for each in parser.logprobs] == ["Pa", "ris"]


def test_a_piece_is_emitted_as_soon_as_it_is_known_to_be_reasoning_or_answer():
    calls: list[tuple[Event, ...]] = []
    parser = ReasoningParser(lambda *events: calls.append(events))
    for piece in ("<think>", "So", " it is", "</think>", " ", "Pa", "ris"):
        parser.feed(piece)
        parser.emit_pending()
    assert calls == [(Thought("So"),), (Thought(" it is"),), (Token("Pa"),), (Token("ris"),)]


def test_all_pending_events_are_emitted_in_one_call():
    calls: list[tuple[Event, ...]] = []
    parser = ReasoningParser(lambda *events: calls.append(events))
    parser.feed_reasoning("Well.")
    parser.feed("Paris")
    parser.emit_pending()
    parser.emit_pending()
    assert calls == [(Thought("Well."), Token("Paris"))]


def test_reasoning_that_the_runtime_has_separated_stays_separate():
    parser = ReasoningParser(no_op)
    parser.feed_reasoning("Well.")
    parser.feed("Paris")
    assert parser.finish() == ("Well.", "Paris")


def test_a_text_of_whitespace_is_an_answer():
    texts, events = parse(*[" "] * 5000)
    assert texts == ("", " " * 5000)
    assert len(events) > 3000


def test_probabilities_are_those_of_the_answer_and_never_of_the_reasoning():
    tokens, emitted = tokens_of(("<think>", "So", "</think>", " ", "\n", "Pa", "ris"))
    assert tokens == emitted == ["Pa", "ris"]


@pytest.mark.parametrize(
    ("lines", "tokens"),
    [
        ([("", ["P"]), ("Pa", ["a"])], ["P", "a"]),  # text may come later than its probabilities
        ([("<th", ["<", "th"]), ("e", ["e"])], ["<", "th", "e"]),
        ([("<think>So</think> Pa", ["<think>", "So", "</think>", " Pa"])], [" Pa"]),
        ([("", ["</think>"]), ("\U0001f680", ["\U0001f680"])], ["\U0001f680"]),
        ([("Paris", ["Paris"]), ("", ["END"])], ["Paris"]),
        ([("", [""]), ("Paris", ["Paris"])], ["", "Paris"]),
    ],
)
def test_each_text_comes_with_the_probabilities_of_its_tokens(lines, tokens):
    events: list[Event] = []
    parser = ReasoningParser(lambda *new: events.extend(new))
    for text, names in lines:
        parser.add_logprobs([Logprob(name, -0.5, tuple(name.encode())) for name in names])
        if text:
            parser.feed(text)
    parser.finish()
    parser.emit_pending()
    assert [each.token for each in parser.logprobs] == tokens
    emitted = [each for event in events if isinstance(event, Token) for each in event.logprobs]
    assert tuple(emitted) == parser.logprobs


def tokens_of(pieces):
    """Return the tokens with probabilities of the whole answer, and those of its events."""
    events: list[Event] = []
    parser = ReasoningParser(lambda *new: events.extend(new))
    for piece in pieces:
        parser.add_logprobs([Logprob(piece, -0.5, tuple(piece.encode()))])
        parser.feed(piece)
    parser.finish()
    parser.emit_pending()
    emitted = [each for event in events if isinstance(event, Token) for each in event.logprobs]
    return [each.token for each in parser.logprobs], [each.token for each in emitted]


@pytest.mark.parametrize("text", TEXTS)
def test_the_parser_has_no_reference_cycle(text):
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
