"""The watch: hang-ups, alarms and readable descriptors, without polling."""

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


def test_a_caller_that_hangs_up_is_noticed_at_once(event_loop: EventLoop):
    ours, theirs = socket.socketpair()
    with ours, watch_client(event_loop, ours) as client:
        noticed = threading.Event()
        with client.on_disconnect(noticed.set):
            assert not client.gone
            theirs.close()
            assert noticed.wait(1)
        assert client.gone


def test_a_caller_that_keeps_talking_has_not_hung_up(event_loop: EventLoop):
    ours, theirs = socket.socketpair()
    with ours, theirs, watch_client(event_loop, ours) as client:
        theirs.send(b"the next request, sent early")
        rung = threading.Event()
        event_loop.at(time.monotonic() + 0.05, rung.set)
        assert rung.wait(1)
        assert not client.gone


def test_what_is_registered_after_the_hang_up_is_called_at_once(event_loop: EventLoop):
    ours, theirs = socket.socketpair()
    with ours, watch_client(event_loop, ours) as client:
        theirs.close()
        eventually(lambda: client.gone)
        noticed = threading.Event()
        with client.on_disconnect(noticed.set):
            assert noticed.is_set()


def test_a_connection_that_takes_over_the_number_of_another_is_not_hung_up(event_loop: EventLoop):
    for _ in range(100):
        ours, theirs = socket.socketpair()
        with watch_client(event_loop, ours):
            theirs.close()
        ours.close()
        ours, theirs = socket.socketpair()
        with ours, theirs, watch_client(event_loop, ours) as client:
            assert not client.gone


def test_an_alarm_goes_off_in_time_and_not_if_it_is_called_off(event_loop: EventLoop):
    heard = []
    done = threading.Event()
    began = time.monotonic()
    event_loop.at(began + 0.02, lambda: heard.append("called off")).cancel()
    event_loop.at(began + 0.1, done.set)
    event_loop.at(began + 0.05, lambda: heard.append("first"))
    assert done.wait(30)
    # Without a wakeup of its own the timer would be due at the next look, after 1 s.
    assert 0.09 < time.monotonic() - began < 0.9
    assert heard == ["first"]


def test_alarms_that_are_called_off_take_up_no_memory(event_loop: EventLoop):
    for _ in range(10_000):
        event_loop.at(time.monotonic() + 3600, lambda: None).cancel()
    assert len(event_loop._timers) < 3000


def test_one_act_that_fails_does_not_end_the_watch(event_loop: EventLoop, caplog):
    done = threading.Event()
    event_loop.at(time.monotonic(), lambda: 1 / 0)
    event_loop.at(time.monotonic() + 0.01, done.set)
    assert done.wait(1)
    assert "watch_failed" in caplog.text


def test_a_readable_descriptor_is_told_of_until_it_has_been_read(event_loop: EventLoop):
    reader, writer = os.pipe()
    got: list[bytes] = []
    event_loop.readable(reader, lambda: got.append(os.read(reader, 100)))
    os.write(writer, b"one")
    eventually(lambda: got == [b"one"])
    os.write(writer, b"two")
    eventually(lambda: got == [b"one", b"two"])
