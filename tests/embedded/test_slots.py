"""The places in an engine are given out in order, and to nobody who has left."""

import socket
import threading

import pytest

from mes.embedded.api_errors import ClientLeft
from mes.embedded.slots import ClientConnection, Slots

from .conftest import until


@pytest.fixture
def connection():
    """Both ends of a client's connection: ours as a Caller, and theirs"""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ClientConnection(ours), theirs


def wait_in(slots, caller, served, name):
    def waited():
        with slots.one(caller):
            served.append(name)

    before = len(slots._queue)
    thread = threading.Thread(target=waited)
    thread.start()
    until(lambda: len(slots._queue) > before)
    return thread


def test_places_go_to_the_first_who_came(connection):
    caller, _ = connection
    slots, served = Slots(1), []
    with slots.one(caller):
        waiting = [wait_in(slots, caller, served, number) for number in range(5)]
        assert served == []
    for thread in waiting:
        thread.join()
    assert served == [0, 1, 2, 3, 4]


def test_no_more_are_served_at_a_time_than_there_are_places(connection):
    caller, _ = connection
    slots, served = Slots(2), []
    with slots.one(caller), slots.one(caller):
        thread = wait_in(slots, caller, served, "third")
        assert served == []
    thread.join()
    assert served == ["third"]


def test_a_caller_who_leaves_the_queue_gives_way(connection):
    caller, theirs = connection
    slots, raised = Slots(1), []

    def waits():
        try:
            with slots.one(caller):
                raise AssertionError("nobody is there to be served")
        except ClientLeft as exc:
            raised.append(exc)

    ours, other = socket.socketpair()
    with ours, other, slots.one(ClientConnection(ours)):
        thread = threading.Thread(target=waits)
        thread.start()
        until(lambda: slots._queue)
        theirs.close()
        thread.join(5)
        assert raised
        assert not slots._queue
        with pytest.raises(ClientLeft):
            caller.check()


def test_a_caller_who_sends_more_has_not_left(connection):
    caller, theirs = connection
    theirs.send(b"GET / HTTP/1.1\r\n")
    assert not caller.has_left()
    ours, other = socket.socketpair()
    with ours, other:
        other.send(b"x")
        caller.wait_for(ours)
