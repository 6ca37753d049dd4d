"""Each generated token has its probability and its own bytes, also a part of a letter."""

from __future__ import annotations

import json

import requests

from mes.embedded.engine import Vocabulary
from mes.embedded.logprobs import FEW, TokenReports

from .conftest import MODEL

ROCKETS = "Repeat this line: \U0001f600\U0001f680 日本語 é ☃"
CAPITAL = "What is the capital of France?"


def generate(program, prompt, **options):
    """Return the lines of a generation with the two likeliest tokens at each place."""
    exact = {"temperature": 0, "seed": 7, "num_predict": 12, **options}
    document = {"model": MODEL, "prompt": prompt, "options": exact}
    document |= {"logprobs": True, "top_logprobs": 2}
    answer = requests.post(f"{program.url}/api/generate", json=document, timeout=120)
    return [json.loads(line) for line in answer.content.splitlines()]


def bytes_of(line):
    return b"".join(bytes(each["bytes"]) for each in line.get("logprobs", []))


def test_each_part_of_a_letter_has_its_probability(program):
    *lines, last = generate(program, ROCKETS)
    assert len(lines) == 4
    for line in lines:
        assert line["response"] == "\U0001f680"
        assert bytes_of(line) == line["response"].encode()
    entries = [each for line in lines for each in line["logprobs"]]
    assert len(entries) == last["eval_count"] == 12
    for each in entries:
        # At temperature 0 the chosen token is the likeliest.
        assert each["top_logprobs"][0]["bytes"] == each["bytes"]
        assert each["top_logprobs"][0]["logprob"] == each["logprob"] <= 0
        assert len(each["top_logprobs"]) == 2


def test_each_token_of_text_that_may_begin_a_stop_word_has_its_probability(program):
    *lines, _ = generate(program, CAPITAL, stop=[" of Texas", " of France and"])
    tokens = [each["token"] for line in lines for each in line["logprobs"]]
    assert tokens[:4] == ["The", " capital", " of", " France"]
    assert "".join(tokens) == "".join(line["response"] for line in lines)
    for line in lines:
        assert bytes_of(line) == line["response"].encode()


PIECES = {1: b"\xf0\x9f", 2: b"\x9a", 3: b"\x80", 4: b"\xf0", 5: b"\x9f\x9a", 6: b"a", 7: b" of"}
PIECES |= {8: " \U0001f680".encode(), 9: b"<end>"}


class StubEngine:
    """An engine whose model has the tokens of PIECES, and the same probabilities everywhere."""

    def __init__(self, *likeliest: int) -> None:
        self.vocabulary = Vocabulary(PIECES, letter=6)
        self.asked: list[tuple[list, int]] = []
        self.slots: list[int | None] = []
        self._likeliest = likeliest

    def request(self, path, body, client):
        self.asked.append((body["prompt"], body["n_probs"]))
        self.slots.append(body.get("id_slot"))
        tokens = [
            report(each, -float(n)) for n, each in enumerate(self._likeliest[: body["n_probs"]])
        ]
        return {"completion_probabilities": [{"top_logprobs": tokens}]}


def report(token: int, logprob: float = -0.5) -> dict:
    return {"id": token, "logprob": logprob, "bytes": list(PIECES[token])}


def event(content: str, predicted: int, *tokens: int) -> dict:
    reports = {"completion_probabilities": [report(each) for each in tokens]} if tokens else {}
    return {"content": content, "tokens_predicted": predicted, **reports}


def entries(engine, *events):
    reports = TokenReports("prompt", 2, engine, None)
    return [[bytes(each["bytes"]) for each in reports.entries(one)] for one in events]


def test_a_token_that_was_not_reported_is_asked_for_after_the_tokens_before_it():
    engine = StubEngine(8, 1, 4, 5, 2)
    made = entries(engine, event("a", 1, 6), event("\U0001f680", 4, 3))
    assert made == [[b"a"], [b"\xf0\x9f", b"\x9a", b"\x80"]]
    assert engine.asked == [(["prompt", 6], FEW), (["prompt", 6, 1], FEW)]


def test_a_letter_in_text_that_was_held_back_is_divided_too():
    engine = StubEngine(1, 2)
    made = entries(engine, event("", 1, 7), event("", 4, 3), event(" of\U0001f680a", 5, 6))
    assert made == [[], [], [b" of", b"\xf0\x9f", b"\x9a", b"\x80", b"a"]]


def test_all_tokens_are_asked_for_if_the_few_likeliest_do_not_fit(monkeypatch):
    monkeypatch.setattr("mes.embedded.logprobs.FEW", 1)
    engine = StubEngine(7, 4, 5)
    made = entries(engine, event("\U0001f680", 3, 3))
    assert made == [[b"\xf0", b"\x9f\x9a", b"\x80"]]
    assert [count == 1 for _, count in engine.asked] == [True, False, True, False]


def test_a_token_that_cannot_be_found_is_left_out():
    assert entries(StubEngine(7), event("\U0001f680", 3, 3)) == [[b"\x80"]]


def test_tokens_after_the_end_of_the_text_have_no_entry():
    made = entries(StubEngine(), event("", 1, 7), event(" o", 2, 9), event("", 3))
    assert made == [[], [b" of"], []]


def test_the_engine_is_asked_after_the_generation_and_in_its_slot():
    engine, read = StubEngine(8, 1, 4, 5, 2), []

    def events():
        for each in (event("a", 1, 6), event("\U0001f680", 4, 3), event("", 4) | {"id_slot": 3}):
            read.append(each["content"])
            yield each

    reports = TokenReports("prompt", 2, engine, None)
    for number, each in enumerate(reports.without_overlap(events())):
        reports.entries(each)
        assert read == (["a"] if number == 0 else ["a", "\U0001f680", ""])
    assert engine.slots == [3, 3]
