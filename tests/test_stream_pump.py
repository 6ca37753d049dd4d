"""The relay: steps are taken in its thread while they can be, and in the stream's own otherwise."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Iterator

import pytest

from mes.streams import StreamPump

LONG = 10.0


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    source, other = socket.socketpair()
    with source, other:
        yield source, other


def reading(source: socket.socket, seen: list[tuple[bytes, str]], *, anywhere: bool = True):
    """A step for each read, until there is no more to read."""
    while data := source.recv(100):
        seen.append((data, threading.current_thread().name))
        yield anywhere
    return len(seen)


def sent(other: socket.socket, *pieces: bytes, seen: list[tuple[bytes, str]]) -> threading.Thread:
    """Sends each of the pieces after the one before has been read, then ends."""

    def send() -> None:
        for number, piece in enumerate(pieces, 1):
            other.sendall(piece)
            while len(seen) < number:
                threading.Event().wait(0.001)
        other.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def test_the_first_step_is_taken_here_and_the_others_in_the_relay(stream_pump, ends):
    seen: list[tuple[bytes, str]] = []
    thread = sent(ends[1], b"1", b"2", b"3", seen=seen)
    assert stream_pump.run(reading(ends[0], seen), ends[0]) == 3
    thread.join()
    own = threading.current_thread().name
    assert seen == [(b"1", own), (b"2", "mes-stream-pump"), (b"3", "mes-stream-pump")]


@pytest.mark.parametrize("hold_back", ["the steps", "no source"])
def test_all_steps_are_taken_here_where(stream_pump, ends, hold_back):
    seen: list[tuple[bytes, str]] = []
    thread = sent(ends[1], b"1", b"2", b"3", seen=seen)
    steps = reading(ends[0], seen, anywhere=hold_back != "the steps")
    assert stream_pump.run(steps, ends[0] if hold_back == "the steps" else None) == 3
    thread.join()
    assert {name for _, name in seen} == {threading.current_thread().name}


def test_a_stream_comes_back_when_its_step_says_so_and_may_go_again(stream_pump, ends):
    source, other = ends
    seen: list[str] = []

    def steps():
        for anywhere in (True, False, True, True):
            source.recv(1)
            seen.append(threading.current_thread().name)
            yield anywhere

    other.sendall(b"1234")
    other.shutdown(socket.SHUT_WR)  # so that the relay sees that the last step can be taken
    stream_pump.run(steps(), source)
    own = threading.current_thread().name
    assert seen == [own, "mes-stream-pump", own, "mes-stream-pump"]


def test_what_a_step_raises_is_raised_here_and_leaves_nothing_for_the_garbage_collector(
    stream_pump, ends
):
    class Broken(Exception):
        pass

    def steps():
        yield True
        raise Broken

    def run() -> None:
        with pytest.raises(Broken) as told:
            stream_pump.run(steps(), ends[0])
        del told

    ends[1].sendall(b"!")
    run()
    gc.collect()
    gc.disable()
    try:
        run()
        assert not [each for each in gc.get_objects() if isinstance(each, Broken)]
    finally:
        gc.enable()


def test_streams_that_are_left_when_it_closes_go_on_in_their_own_threads(ends):
    source, other = ends
    stream_pump, begun = StreamPump(), threading.Event()
    seen: list[tuple[bytes, str]] = []

    def steps():
        begun.set()
        yield True
        yield from reading(source, seen)

    stream = threading.Thread(target=stream_pump.run, args=(steps(), source), name="own")
    stream.start()
    assert begun.wait(LONG)
    stream_pump.close()
    thread = sent(other, b"1", b"2", seen=seen)
    thread.join()
    stream.join(LONG)
    assert seen == [(b"1", "own"), (b"2", "own")]


def test_what_is_handed_over_to_a_closed_relay_stays_where_it_is(ends):
    stream_pump = StreamPump()
    stream_pump.close()
    seen: list[tuple[bytes, str]] = []
    thread = sent(ends[1], b"1", b"2", seen=seen)
    assert stream_pump.run(reading(ends[0], seen), ends[0]) == 2
    thread.join()


def test_a_stream_that_waits_keeps_no_other_waiting(stream_pump, ends):
    quick, quick_end = socket.socketpair()
    silent_source, silent_end = ends
    began = threading.Event()

    def silently():
        began.set()
        yield True
        return silent_source.recv(100)

    got: list[bytes] = []
    waiting = threading.Thread(
        target=lambda: got.append(stream_pump.run(silently(), silent_source))
    )
    waiting.start()
    with quick, quick_end:
        assert began.wait(LONG)
        seen: list[tuple[bytes, str]] = []
        thread = sent(quick_end, b"1", b"2", b"3", seen=seen)
        assert stream_pump.run(reading(quick, seen), quick) == 3
        thread.join()
    assert not got
    silent_end.sendall(b"now")
    waiting.join(LONG)
    assert got == [b"now"]
