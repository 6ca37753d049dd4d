"""The generations of one request: threads, wait slots, failures, and the buffer of their chunks."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from mes.api.choices import ChoiceWriter, DocumentBuffer
from mes.api.generations import Generations, running
from mes.domain import Token
from mes.errors import ClientDisconnected, ClientTooSlow, GenerationAborted, QueueFull
from tests.fakes import client, eventually, in_thread


def run(calls: list[Any], *, permits: int = 2, slots: int = 10) -> list[Any]:
    free = threading.BoundedSemaphore(slots)
    try:
        with running(calls, client=client(), max_concurrent=permits, wait_slots=free) as started:
            started.join()
        return started.results()
    finally:
        # All slots are given back.
        assert all(free.acquire(blocking=False) for _ in range(slots))


def test_results_come_in_the_order_of_the_calls():
    second_has_run = threading.Event()

    def first(**_: Any) -> str:
        assert second_has_run.wait(10)
        return "first"

    def second(**_: Any) -> str:
        second_has_run.set()
        return "second"

    assert run([first, second]) == ["first", "second"]


@pytest.mark.parametrize(("permits", "slots", "most"), [(2, 10, 2), (100, 100, 16), (8, 3, 4)])
def test_no_more_threads_run_than_permits_slots_and_sixteen(permits, slots, most):
    """The first thread uses the wait slot of the request."""
    threads = set()

    def call(**_: Any) -> None:
        threads.add(threading.get_ident())

    barrier = threading.Barrier(most)

    def meet(**_: Any) -> None:
        threads.add(threading.get_ident())
        barrier.wait(10)

    run([meet] * most + [call] * (200 - most), permits=permits, slots=slots)
    assert len(threads) == most


def test_slots_are_given_back_if_the_system_starts_no_more_threads(monkeypatch):
    start, started = threading.Thread.start, []

    def start_two(thread: threading.Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_two)
    with pytest.raises(RuntimeError):
        run([lambda **_: None] * 4, permits=4)
    assert not any(thread.is_alive() for thread in started)


def test_a_later_generation_continues_the_request():
    seen = []

    def call(*, is_continued: bool, **_: Any) -> None:
        seen.append(is_continued)

    run([call] * 3, permits=1)
    assert seen == [False, True, True]


def test_the_first_failure_is_raised_and_begins_no_other_generation():
    ran = []

    def fail(**_: Any) -> None:
        raise GenerationAborted("broken")

    with pytest.raises(GenerationAborted):
        run([fail, lambda **_: ran.append(1)], permits=1)
    assert ran == []


def test_a_full_queue_leaves_the_generation_to_the_threads_that_have_a_place():
    has_place, is_refused = threading.Event(), threading.Event()
    refusals = iter([QueueFull("full")])

    def hold(**_: Any) -> str:
        has_place.set()
        assert is_refused.wait(10)
        return "held"

    def refused_once(**_: Any) -> str:
        assert has_place.wait(10)
        for refusal in refusals:
            is_refused.set()
            raise refusal
        return "later"

    assert run([hold, refused_once]) == ["held", "later"]


def test_a_full_queue_is_the_error_if_no_thread_has_a_place():
    def refuse(**_: Any) -> None:
        raise QueueFull("full")

    with pytest.raises(QueueFull):
        run([refuse] * 4)


def test_a_client_that_has_left_before_the_start_runs_nothing():
    ran, left = [], client()
    left.mark_disconnected()
    with running(
        [lambda **_: ran.append(1)],
        client=left,
        max_concurrent=1,
        wait_slots=threading.BoundedSemaphore(1),
    ) as generations:
        generations.join()
    with pytest.raises(ClientDisconnected):
        generations.results()
    assert ran == []


def test_the_end_is_reported_once_after_the_last_generation():
    ended: list[int] = []
    done: list[int] = []
    generations = Generations(
        [lambda **_: done.append(1)] * 5,
        threading.BoundedSemaphore(5),
        lambda: ended.append(len(done)),
    )
    generations.start(3)
    generations.join()
    assert ended == [5]


# The buffer of the chunks.


def fill(buffer: DocumentBuffer) -> None:
    while buffer.put([{}]):
        pass


def writer(buffer: DocumentBuffer, patience_seconds: float = 30.0) -> ChoiceWriter:
    return ChoiceWriter(buffer, lambda event: {"text": event.text}, patience_seconds)


def test_documents_are_read_in_their_order_until_the_end():
    buffer = DocumentBuffer()
    buffer.put([{"n": 1}, {"n": 2}])
    buffer.put([{"n": 3}])
    buffer.end()
    assert [list(batch) for batch in buffer] == [[{"n": 1}, {"n": 2}, {"n": 3}]]


def test_a_generation_pauses_until_the_reader_has_made_room():
    buffer, written = DocumentBuffer(), threading.Event()
    fill(buffer)

    def write() -> None:
        writer(buffer).emit(Token("late"))
        written.set()

    with in_thread(write):
        assert not written.wait(0.1)
        batches = iter(buffer)
        next(batches)
        assert written.wait(10)
    buffer.end()
    assert list(next(batches)) == [{"text": "late"}]


def test_a_generation_fails_when_the_reader_makes_no_room_in_time():
    buffer = DocumentBuffer()
    fill(buffer)
    with pytest.raises(ClientTooSlow):
        writer(buffer, patience_seconds=0.01).emit(Token("late"))


def test_a_generation_that_pauses_ends_when_the_reader_leaves():
    buffer, errors = DocumentBuffer(), []
    fill(buffer)

    def write() -> None:
        try:
            writer(buffer).emit(Token("late"))
        except ClientDisconnected as exc:
            errors.append(exc)

    with in_thread(write):
        buffer.close()
    assert len(errors) == 1


def test_another_thread_never_waits_for_room():
    """The stream pump serves other streams too."""
    buffer = DocumentBuffer()
    its_writer, accepted = writer(buffer), []
    fill(buffer)
    with in_thread(lambda: accepted.append(its_writer.emit(Token("late")))):
        eventually(lambda: accepted)
    assert accepted == [False]


def test_events_that_are_not_reported_leave_the_generation_in_its_thread():
    buffer = DocumentBuffer()
    silent = ChoiceWriter(buffer, lambda event: None, 30.0)
    assert silent.emit(Token("a")) is False
    assert writer(buffer).emit(Token("a")) is True
