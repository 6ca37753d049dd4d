"""The event loop: disconnects, timers and readable file descriptors, without polling."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from mes.event_loop import EventLoop, watch_client
from tests.fakes import eventually


@pytest.fixture
def event_loop() -> Iterator[EventLoop]:
    event_loop = EventLoop()
    yield event_loop
    event_loop.close()


def test_a_disconnect_is_noticed_at_once(event_loop: EventLoop):
    ours, theirs = socket.socketpair()
    with ours, watch_client(event_loop, ours) as client:
        noticed = threading.Event()
        with client.on_disconnect(noticed.set):
            assert not client.disconnected
            theirs.close()
            assert noticed.wait(1)
        assert client.disconnected


def test_a_client_that_sends_more_data_is_not_disconnected(event_loop: EventLoop):
    ours, theirs = socket.socketpair()
    with ours, theirs, watch_client(event_loop, ours) as client:
        theirs.send(b"the next request, sent early")
        later = threading.Event()
        event_loop.call_at(time.monotonic() + 0.05, later.set)
        assert later.wait(1)
        assert not client.disconnected


def test_a_callback_registered_after_the_disconnect_is_called_at_once(event_loop: EventLoop):
    ours, theirs = socket.socketpair()
    with ours, watch_client(event_loop, ours) as client:
        theirs.close()
        eventually(lambda: client.disconnected)
        noticed = threading.Event()
        with client.on_disconnect(noticed.set):
            assert noticed.is_set()


def test_a_connection_that_reuses_a_descriptor_is_not_disconnected(
    event_loop: EventLoop,
):
    for _ in range(100):
        ours, theirs = socket.socketpair()
        with watch_client(event_loop, ours):
            theirs.close()
        ours.close()
        ours, theirs = socket.socketpair()
        with ours, theirs, watch_client(event_loop, ours) as client:
            assert not client.disconnected


def test_a_timer_fires_in_time_unless_it_is_cancelled(event_loop: EventLoop):
    fired = []
    done = threading.Event()
    began = time.monotonic()
    event_loop.call_at(began + 0.02, lambda: fired.append("cancelled")).cancel()
    event_loop.call_at(began + 0.1, done.set)
    event_loop.call_at(began + 0.05, lambda: fired.append("first"))
    assert done.wait(30)
    # Without a wakeup of its own the timer would fire at the next regular check, after 1 s.
    assert 0.09 < time.monotonic() - began < 0.9
    assert fired == ["first"]


def test_cancelled_timers_take_up_no_memory(event_loop: EventLoop):
    for _ in range(10_000):
        event_loop.call_at(time.monotonic() + 3600, lambda: None).cancel()
    assert len(event_loop._timers) < 3000


def test_a_failed_callback_does_not_end_the_loop(event_loop: EventLoop, caplog):
    done = threading.Event()
    event_loop.call_at(time.monotonic(), lambda: 1 / 0)
    event_loop.call_at(time.monotonic() + 0.01, done.set)
    assert done.wait(1)
    assert "event_loop_callback_failed" in caplog.text


def test_a_reader_is_called_until_the_descriptor_has_been_read(event_loop: EventLoop):
    reader, writer = os.pipe()
    received: list[bytes] = []
    event_loop.add_reader(reader, lambda: received.append(os.read(reader, 100)))
    os.write(writer, b"one")
    eventually(lambda: received == [b"one"])
    os.write(writer, b"two")
    eventually(lambda: received == [b"one", b"two"])
