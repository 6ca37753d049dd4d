"""The stream pump: steps run in its thread as long as they can, else in the stream's own."""

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


def read_steps(source: socket.socket, seen: list[tuple[bytes, str]], *, in_pump: bool = True):
    """Read once in each step, until the end of the connection."""
    while data := source.recv(100):
        seen.append((data, threading.current_thread().name))
        yield in_pump
    return len(seen)


def start_sending(
    other: socket.socket, *pieces: bytes, seen: list[tuple[bytes, str]]
) -> threading.Thread:
    """Send each piece after the one before has been read, then close the connection."""

    def send() -> None:
        for number, piece in enumerate(pieces, 1):
            other.sendall(piece)
            while len(seen) < number:
                threading.Event().wait(0.001)
        other.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def test_the_first_step_runs_in_the_calling_thread_and_the_others_in_the_pump(stream_pump, ends):
    seen: list[tuple[bytes, str]] = []
    thread = start_sending(ends[1], b"1", b"2", b"3", seen=seen)
    assert stream_pump.run(read_steps(ends[0], seen), ends[0]) == 3
    thread.join()
    own = threading.current_thread().name
    assert seen == [(b"1", own), (b"2", "mes-stream-pump"), (b"3", "mes-stream-pump")]


@pytest.mark.parametrize("reason", ["the steps", "no source"])
def test_all_steps_run_in_the_calling_thread_because_of(stream_pump, ends, reason):
    seen: list[tuple[bytes, str]] = []
    thread = start_sending(ends[1], b"1", b"2", b"3", seen=seen)
    steps = read_steps(ends[0], seen, in_pump=reason != "the steps")
    assert stream_pump.run(steps, ends[0] if reason == "the steps" else None) == 3
    thread.join()
    assert {name for _, name in seen} == {threading.current_thread().name}


def test_a_stream_leaves_the_pump_when_its_step_says_so_and_may_enter_it_again(stream_pump, ends):
    source, other = ends
    seen: list[str] = []

    def steps():
        for in_pump in (True, False, True, True):
            source.recv(1)
            seen.append(threading.current_thread().name)
            yield in_pump

    other.sendall(b"1234")
    other.shutdown(socket.SHUT_WR)  # makes the socket readable for the last step
    stream_pump.run(steps(), source)
    own = threading.current_thread().name
    assert seen == [own, "mes-stream-pump", own, "mes-stream-pump"]


def test_an_exception_of_a_step_is_raised_in_the_caller_and_leaves_no_reference_cycle(
    stream_pump, ends
):
    class Broken(Exception):
        pass

    def steps():
        yield True
        raise Broken

    def run() -> None:
        with pytest.raises(Broken) as caught:
            stream_pump.run(steps(), ends[0])
        del caught

    ends[1].sendall(b"!")
    run()
    gc.collect()
    gc.disable()
    try:
        run()
        assert not [each for each in gc.get_objects() if isinstance(each, Broken)]
    finally:
        gc.enable()


def test_unfinished_streams_continue_in_their_own_threads_after_close(ends):
    source, other = ends
    stream_pump, begun = StreamPump(), threading.Event()
    seen: list[tuple[bytes, str]] = []

    def steps():
        begun.set()
        yield True
        yield from read_steps(source, seen)

    stream = threading.Thread(target=stream_pump.run, args=(steps(), source), name="own")
    stream.start()
    assert begun.wait(LONG)
    stream_pump.close()
    thread = start_sending(other, b"1", b"2", seen=seen)
    thread.join()
    stream.join(LONG)
    assert seen == [(b"1", "own"), (b"2", "own")]


def test_a_stream_of_a_closed_pump_runs_in_the_calling_thread(ends):
    stream_pump = StreamPump()
    stream_pump.close()
    seen: list[tuple[bytes, str]] = []
    thread = start_sending(ends[1], b"1", b"2", seen=seen)
    assert stream_pump.run(read_steps(ends[0], seen), ends[0]) == 2
    thread.join()


def test_a_stream_that_waits_does_not_delay_others(stream_pump, ends):
    quick, quick_end = socket.socketpair()
    silent_source, silent_end = ends
    began = threading.Event()

    def silent_steps():
        began.set()
        yield True
        return silent_source.recv(100)

    got: list[bytes] = []
    waiting = threading.Thread(
        target=lambda: got.append(stream_pump.run(silent_steps(), silent_source))
    )
    waiting.start()
    with quick, quick_end:
        assert began.wait(LONG)
        seen: list[tuple[bytes, str]] = []
        thread = start_sending(quick_end, b"1", b"2", b"3", seen=seen)
        assert stream_pump.run(read_steps(quick, seen), quick) == 3
        thread.join()
    assert not got
    silent_end.sendall(b"now")
    waiting.join(LONG)
    assert got == [b"now"]
