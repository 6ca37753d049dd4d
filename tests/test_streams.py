"""Streams: what is told reaches the reader, who may be slow, or leave, or find that it failed."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from mes.domain import Token
from mes.errors import ClientDisconnected, ClientTooSlow, GenerationAborted
from mes.streams import Stream


class Reader:
    """Takes nothing until it is open; can take more, or cannot; waits for nothing."""

    def __init__(self) -> None:
        self.has_room = True
        self.is_open = False
        self.taken: list[Token] = []
        self.waited: list[float] = []

    def take(self, items: Sequence[Token]) -> bool:
        if self.is_open and self.has_room:
            self.taken += items
            return True
        return False

    def can_take_more(self, *, within: float = 0.0) -> bool:
        if within:
            self.waited.append(within)
        return self.has_room


def telling(number: int, *, then: Exception | None = None, done: list[str] | None = None):
    """Work that tells so many tokens and returns how many they were."""

    def work(emit):
        try:
            for n in range(number):
                emit(Token(str(n)))
            if then is not None:
                raise then
            return number
        finally:
            if done is not None:
                done.append("done")

    return work


def texts(batches) -> list[str]:
    return [event.text for events in batches for event in events]


def test_each_event_comes_as_it_is_told_and_the_result_at_the_end():
    at_work: list[str] = []
    stream = Stream(telling(2, done=at_work), reader=Reader(), patience_seconds=1)
    events = iter(stream)
    assert next(events) == (Token("0"),)
    assert at_work == []
    assert texts(events) == ["1"]
    assert stream.result == 2


def test_what_is_told_at_once_comes_at_once():
    def work(emit):
        emit(Token("0"), Token("1"))
        emit(Token("2"))

    assert list(Stream(work, reader=Reader(), patience_seconds=1)) == [
        (Token("0"), Token("1")),
        (Token("2"),),
    ]


def test_what_the_reader_takes_is_not_iterated():
    reader = Reader()
    events = iter(Stream(telling(4), reader=reader, patience_seconds=1))
    assert next(events) == (Token("0"),)
    reader.is_open = True
    assert list(events) == []
    assert reader.taken == [Token("1"), Token("2"), Token("3")]


def test_nothing_is_taken_before_what_is_kept():
    reader = Reader()
    answers: list[bool] = []

    def work(emit):
        answers.append(emit(Token("0")))
        reader.is_open, reader.has_room = True, False
        answers.append(emit(Token("1")))
        reader.has_room = True
        answers.append(emit(Token("2")))
        answers.append(emit(Token("3")))

    stream = Stream(work, reader=reader, patience_seconds=1)
    assert texts(stream) == ["0", "1", "2"]
    assert reader.taken == [Token("3")]
    assert answers == [False, False, False, True]


def test_what_is_told_in_another_thread_is_taken_there_or_kept():
    reader = Reader()
    answers: list[bool] = []

    def work(emit):
        def elsewhere():
            answers.append(emit(Token("0")))
            reader.is_open = False
            answers.append(emit(Token("1")))

        reader.is_open = True
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    assert texts(Stream(work, reader=reader, patience_seconds=1)) == ["1"]
    assert reader.taken == [Token("0")]
    assert answers == [True, False]


def test_nothing_to_tell_wakes_nobody():
    reader = Reader()

    def work(emit):
        assert emit() is False

    assert list(Stream(work, reader=reader, patience_seconds=1)) == []


def test_the_work_is_done_before_a_slow_reader_has_read_anything():
    reader, done = Reader(), []
    reader.has_room = False
    stream = Stream(telling(500, done=done), reader=reader, patience_seconds=1)
    events = iter(stream)
    assert next(events) == (Token("0"),)
    assert done == ["done"]
    assert len(texts(events)) == 499
    assert stream.result == 500


def test_no_more_is_handed_over_than_the_reader_can_take_while_there_is_work():
    reader = Reader()
    reader.has_room = False
    room = iter([False] * 5 + [True] * 2 + [False] * 100)
    reader.can_take_more = lambda **_: next(room)
    done: list[str] = []
    events = iter(Stream(telling(20, done=done), reader=reader, patience_seconds=1))
    # The sixth finds room, for itself and for one of those before it.
    assert texts([next(events), next(events)]) == ["0", "1"]
    assert not done
    assert len(texts(events)) == 18


def test_no_more_events_are_kept_than_an_answer_of_usual_length_has():
    reader = Reader()
    reader.has_room = False
    stream = Stream(telling(10_000), reader=reader, patience_seconds=0)
    read = []
    with pytest.raises(ClientTooSlow):
        read.extend(stream)
    assert len(read) == 1024


def test_a_reader_that_leaves_while_the_work_waits_for_it_ends_the_work():
    reader, done = Reader(), []
    reader.has_room = False
    with pytest.raises(ClientDisconnected) as told:
        list(Stream(telling(10_000, done=done), reader=reader, patience_seconds=30))
    assert told.type is ClientDisconnected
    assert done == ["done"]


def test_all_waits_for_a_reader_together_are_bounded():
    class Sluggish(Reader):
        def can_take_more(self, *, within: float = 0.0) -> bool:
            return super().can_take_more(within=within) and within > 0

    reader = Sluggish()
    assert len(list(Stream(telling(5000), reader=reader, patience_seconds=30))) == 5000
    assert reader.waited == sorted(reader.waited, reverse=True)
    assert reader.waited[-1] < reader.waited[0] == 30


def test_what_the_work_raises_comes_after_all_that_it_told():
    reader = Reader()
    reader.has_room = False
    work = telling(3, then=GenerationAborted("broke off"))
    read = []
    with pytest.raises(GenerationAborted, match="broke off"):
        read.extend(Stream(work, reader=reader, patience_seconds=1))
    assert texts(read) == ["0", "1", "2"]


def test_closing_ends_the_work_where_it_is():
    done: list[str] = []
    stream = Stream(telling(3, done=done), reader=Reader(), patience_seconds=1)
    next(iter(stream))
    stream.close()
    assert done == ["done"]


def test_closing_what_has_not_begun_or_has_ended_does_nothing():
    stream = Stream(telling(1), reader=Reader(), patience_seconds=1)
    stream.close()
    ended = Stream(telling(1), reader=Reader(), patience_seconds=1)
    list(ended)
    ended.close()
    assert ended.result == 1
