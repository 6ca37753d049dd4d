"""Probabilities of tokens: an entry for each token of the text, with the token's own bytes.

The engine holds text back while it ends inside a letter, or like the beginning of a stop word. It
reports the token that releases the text with all of that text, and a token that ends inside a
letter not at all. Here each token gets its own bytes, and the engine is asked for the probability
of a token that it has not reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mes.embedded.client_connection import ClientConnection
from mes.embedded.engine import Engine, Vocabulary

Entry = dict[str, Any]
Event = dict[str, Any]
Report = Mapping[str, Any]
"""A token as the engine reports it: its id, its probability and the likeliest tokens."""

# A token that was generated is nearly always among so many likeliest; else all are asked for.
FEW = 64
MORE_THAN_ALL = 1_000_000


class TokenReports:
    """The reports of one generation. Makes requests to the engine.

    Args:
        prompt: the text that the model continues.
        limit: number of likeliest tokens in each entry.
    """

    def __init__(self, prompt: str, limit: int, engine: Engine, client: ClientConnection) -> None:
        self._prompt = prompt
        self._limit = limit
        self._engine = engine
        self._client = client
        self._vocabulary = vocabulary_of(engine, client)
        self._ids: list[int] = []
        self._predicted = 0
        self._slot: int | None = None
        # The tokens since the last text; None for one that the engine has not reported.
        self._held: list[Report | None] = []

    def without_overlap(self, events: Iterator[Event]) -> Iterator[Event]:
        """Yield the events; from the first with an unreported token, after the last has arrived.

        A request at the same time as the generation would share its batches, and so change it.
        After it, the slot still has the values of the prompt and of the tokens.
        """
        for event in events:
            if self._missing(event):
                rest = [event, *events]
                self._slot = rest[-1].get("id_slot")
                yield from rest
            else:
                yield event

    def _missing(self, event: Event) -> int:
        reported = len(event.get("completion_probabilities", ()))
        return event["tokens_predicted"] - self._predicted - reported if reported else 0

    def entries(self, event: Event) -> list[Entry]:
        """Return the entries for the text of the event; none if it has no text."""
        if reported := event.get("completion_probabilities"):
            missing = self._missing(event)
            self._predicted = event["tokens_predicted"]
            self._held += [*[None] * missing, *reported]
        text = event["content"].encode()
        if not text:
            return []
        held, self._held = self._held, []
        return [self._entry(report) for report in self._reports(held, text)]

    def _reports(self, held: Sequence[Report | None], text: bytes) -> Iterable[Report]:
        """Yield a report for each token of the text; the text may end before the tokens do."""
        position = 0
        for index, known in enumerate(held):
            if position >= len(text):
                return
            report = known or self._find(text, position, held[index + 1 :])
            if report is None:
                continue
            self._ids.append(report["id"])
            position += len(self._vocabulary.pieces[report["id"]])
            yield report

    def _find(
        self, text: bytes, position: int, following: Sequence[Report | None]
    ) -> Report | None:
        """Return the report of the token at this position of the text, which ends inside a letter.

        None if there is no such token.
        """
        known = sum(len(self._vocabulary.pieces[each["id"]]) for each in following if each)
        unknown = sum(each is None for each in following)
        most = len(text) - position - known - unknown
        least = 1 if unknown else max(1, most)

        def fits(report: Report) -> bool:
            piece = self._vocabulary.pieces[report["id"]]
            is_there = text.startswith(piece, position) and least <= len(piece) <= most
            return is_there and not _is_whole(text[: position + len(piece)])

        for count in (FEW, MORE_THAN_ALL):
            likeliest = self._likeliest(count)
            found = next(filter(fits, likeliest), None)
            if found is not None:
                return {**found, "top_logprobs": likeliest}
        return None

    def _likeliest(self, count: int) -> list[Report]:
        prompt: list[str | int] = [self._prompt, *self._ids]
        letter = self._vocabulary.letter
        cached = {} if self._slot is None else {"id_slot": self._slot, "cache_prompt": True}
        return _likeliest_after(prompt, count, letter, self._engine, self._client, **cached)

    def _entry(self, report: Report) -> Entry:
        entry = _entry(report, self._vocabulary.pieces[report["id"]])
        likeliest = report.get("top_logprobs", [])[: self._limit]
        if not likeliest:
            return entry
        return {**entry, "top_logprobs": [_entry(each, bytes(each["bytes"])) for each in likeliest]}


def vocabulary_of(engine: Engine, client: ClientConnection) -> Vocabulary:
    """Return the tokens of the engine's model. They are read once for each engine."""
    if engine.vocabulary is None:
        letter = engine.request("/tokenize", {"content": "a"}, client)["tokens"][-1]
        tokens = _likeliest_after("a", MORE_THAN_ALL, letter, engine, client)
        engine.vocabulary = Vocabulary(
            {each["id"]: bytes(each["bytes"]) for each in tokens}, letter
        )
    return engine.vocabulary


def _likeliest_after(
    prompt: str | list[str | int],
    count: int,
    letter: int,
    engine: Engine,
    client: ClientConnection,
    **options: Any,
) -> list[Report]:
    """Return so many of the likeliest next tokens after a text, or a text and ids of tokens.

    The engine reports them beside a token that it generates. It is made to generate a letter,
    because it does not report one that ends inside a letter. The probabilities are those without
    this bias.
    """
    body = {"prompt": prompt, "n_predict": 1, "n_probs": count, "logit_bias": [[letter, 1000]]}
    answer = engine.request("/completion", {**body, "temperature": 0, **options}, client)
    likeliest: list[Report] = answer["completion_probabilities"][0]["top_logprobs"]
    return likeliest


def _entry(report: Report, piece: bytes) -> Entry:
    token = piece.decode("utf-8", "replace")
    return {"token": token, "logprob": report["logprob"], "bytes": list(piece)}


def _is_whole(text: bytes) -> bool:
    """Return whether the text does not end inside a letter."""
    try:
        text.decode()
    except UnicodeDecodeError as exc:
        return exc.end != len(text) or exc.reason != "unexpected end of data"
    return True
