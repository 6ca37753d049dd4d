"""Streams: emitted items reach the reader, also if it is slow, leaves, or the work fails."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from mes.domain import Token
from mes.errors import ClientDisconnected, ClientTooSlow, GenerationAborted
from mes.streams import Stream


class Reader:
    """Takes items while it is open and has room; never blocks."""

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


def emitting(number: int, *, then: Exception | None = None, done: list[str] | None = None):
    """Return work that emits this many tokens and returns their number."""

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


def test_each_event_is_iterated_when_it_is_emitted_and_the_result_comes_last():
    done: list[str] = []
    stream = Stream(emitting(2, done=done), reader=Reader(), patience_seconds=1)
    events = iter(stream)
    assert next(events) == (Token("0"),)
    assert done == []
    assert texts(events) == ["1"]
    assert stream.result == 2


def test_items_that_are_emitted_together_are_iterated_together():
    def work(emit):
        emit(Token("0"), Token("1"))
        emit(Token("2"))

    assert list(Stream(work, reader=Reader(), patience_seconds=1)) == [
        (Token("0"), Token("1")),
        (Token("2"),),
    ]


def test_items_that_the_reader_takes_are_not_iterated():
    reader = Reader()
    events = iter(Stream(emitting(4), reader=reader, patience_seconds=1))
    assert next(events) == (Token("0"),)
    reader.is_open = True
    assert list(events) == []
    assert reader.taken == [Token("1"), Token("2"), Token("3")]


def test_no_item_overtakes_a_buffered_one():
    reader = Reader()
    emitted: list[bool] = []

    def work(emit):
        emitted.append(emit(Token("0")))
        reader.is_open, reader.has_room = True, False
        emitted.append(emit(Token("1")))
        reader.has_room = True
        emitted.append(emit(Token("2")))
        emitted.append(emit(Token("3")))

    stream = Stream(work, reader=reader, patience_seconds=1)
    assert texts(stream) == ["0", "1", "2"]
    assert reader.taken == [Token("3")]
    assert emitted == [False, False, False, True]


def test_items_emitted_in_another_thread_are_taken_there_or_buffered():
    reader = Reader()
    emitted: list[bool] = []

    def work(emit):
        def elsewhere():
            emitted.append(emit(Token("0")))
            reader.is_open = False
            emitted.append(emit(Token("1")))

        reader.is_open = True
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    assert texts(Stream(work, reader=reader, patience_seconds=1)) == ["1"]
    assert reader.taken == [Token("0")]
    assert emitted == [True, False]


def test_emitting_no_items_does_nothing():
    reader = Reader()

    def work(emit):
        assert emit() is False

    assert list(Stream(work, reader=reader, patience_seconds=1)) == []


def test_the_work_ends_before_a_slow_reader_has_read_anything():
    reader, done = Reader(), []
    reader.has_room = False
    stream = Stream(emitting(500, done=done), reader=reader, patience_seconds=1)
    events = iter(stream)
    assert next(events) == (Token("0"),)
    assert done == ["done"]
    assert len(texts(events)) == 499
    assert stream.result == 500


def test_no_more_is_iterated_than_the_reader_can_take_while_the_work_runs():
    reader = Reader()
    reader.has_room = False
    room = iter([False] * 5 + [True] * 2 + [False] * 100)
    reader.can_take_more = lambda **_: next(room)
    done: list[str] = []
    events = iter(Stream(emitting(20, done=done), reader=reader, patience_seconds=1))
    # There is room for the first time at the sixth token: for two of the buffered ones.
    assert texts([next(events), next(events)]) == ["0", "1"]
    assert not done
    assert len(texts(events)) == 18


def test_no_more_than_1024_events_are_buffered():
    reader = Reader()
    reader.has_room = False
    stream = Stream(emitting(10_000), reader=reader, patience_seconds=0)
    read = []
    with pytest.raises(ClientTooSlow):
        read.extend(stream)
    assert len(read) == 1024


def test_a_reader_that_leaves_while_the_work_waits_for_it_ends_the_work():
    reader, done = Reader(), []
    reader.has_room = False
    with pytest.raises(ClientDisconnected) as caught:
        list(Stream(emitting(10_000, done=done), reader=reader, patience_seconds=30))
    assert caught.type is ClientDisconnected
    assert done == ["done"]


def test_the_total_time_of_all_waits_for_a_reader_is_limited():
    class SlowReader(Reader):
        def can_take_more(self, *, within: float = 0.0) -> bool:
            return super().can_take_more(within=within) and within > 0

    reader = SlowReader()
    assert len(list(Stream(emitting(5000), reader=reader, patience_seconds=30))) == 5000
    assert reader.waited == sorted(reader.waited, reverse=True)
    assert reader.waited[-1] < reader.waited[0] == 30


def test_an_error_of_the_work_is_raised_after_all_items():
    reader = Reader()
    reader.has_room = False
    work = emitting(3, then=GenerationAborted("broke off"))
    read = []
    with pytest.raises(GenerationAborted, match="broke off"):
        read.extend(Stream(work, reader=reader, patience_seconds=1))
    assert texts(read) == ["0", "1", "2"]


def test_closing_ends_the_work_where_it_is():
    done: list[str] = []
    stream = Stream(emitting(3, done=done), reader=Reader(), patience_seconds=1)
    next(iter(stream))
    stream.close()
    assert done == ["done"]


def test_closing_a_stream_that_has_not_begun_or_has_ended_does_nothing():
    stream = Stream(emitting(1), reader=Reader(), patience_seconds=1)
    stream.close()
    ended = Stream(emitting(1), reader=Reader(), patience_seconds=1)
    list(ended)
    ended.close()
    assert ended.result == 1
