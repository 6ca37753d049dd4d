"""The watch: hang-ups, alarms and readable descriptors, without polling."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from mes.watch import Watch, watched_caller
from tests.fakes import eventually


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = Watch()
    yield watch
    watch.close()


def test_a_caller_that_hangs_up_is_noticed_at_once(watch: Watch):
    ours, theirs = socket.socketpair()
    with ours, watched_caller(watch, ours) as client:
        noticed = threading.Event()
        with client.on_disconnect(noticed.set):
            assert not client.gone
            theirs.close()
            assert noticed.wait(1)
        assert client.gone


def test_a_caller_that_keeps_talking_has_not_hung_up(watch: Watch):
    ours, theirs = socket.socketpair()
    with ours, theirs, watched_caller(watch, ours) as client:
        theirs.send(b"the next request, sent early")
        rung = threading.Event()
        watch.at(time.monotonic() + 0.05, rung.set)
        assert rung.wait(1)
        assert not client.gone


def test_what_is_registered_after_the_hang_up_is_called_at_once(watch: Watch):
    ours, theirs = socket.socketpair()
    with ours, watched_caller(watch, ours) as client:
        theirs.close()
        eventually(lambda: client.gone)
        noticed = threading.Event()
        with client.on_disconnect(noticed.set):
            assert noticed.is_set()


def test_a_connection_that_takes_over_the_number_of_another_is_not_hung_up(watch: Watch):
    for _ in range(100):
        ours, theirs = socket.socketpair()
        with watched_caller(watch, ours):
            theirs.close()
        ours.close()
        ours, theirs = socket.socketpair()
        with ours, theirs, watched_caller(watch, ours) as client:
            assert not client.gone


def test_an_alarm_goes_off_in_time_and_not_if_it_is_called_off(watch: Watch):
    heard = []
    done = threading.Event()
    began = time.monotonic()
    watch.at(began + 0.02, lambda: heard.append("called off")).call_off()
    watch.at(began + 0.1, done.set)
    watch.at(began + 0.05, lambda: heard.append("first"))
    assert done.wait(1)
    assert 0.09 < time.monotonic() - began < 0.5
    assert heard == ["first"]


def test_alarms_that_are_called_off_take_up_no_memory(watch: Watch):
    for _ in range(10_000):
        watch.at(time.monotonic() + 3600, lambda: None).call_off()
    assert len(watch._alarms) < 3000


def test_one_act_that_fails_does_not_end_the_watch(watch: Watch, caplog):
    done = threading.Event()
    watch.at(time.monotonic(), lambda: 1 / 0)
    watch.at(time.monotonic() + 0.01, done.set)
    assert done.wait(1)
    assert "watch_failed" in caplog.text


def test_a_readable_descriptor_is_told_of_until_it_has_been_read(watch: Watch):
    reader, writer = os.pipe()
    got: list[bytes] = []
    watch.readable(reader, lambda: got.append(os.read(reader, 100)))
    os.write(writer, b"one")
    eventually(lambda: got == [b"one"])
    os.write(writer, b"two")
    eventually(lambda: got == [b"one", b"two"])
