"""Slots of an engine are granted in order of arrival, and not to clients that have left."""

import socket
import threading

import pytest

from mes.embedded.api_errors import ClientLeft
from mes.embedded.client_connection import ClientConnection
from mes.embedded.slots import Slots

from .conftest import until


def wait_in(slots, client, served, name):
    def waited():
        with slots.acquire(client):
            served.append(name)

    before = len(slots._queue)
    thread = threading.Thread(target=waited)
    thread.start()
    until(lambda: len(slots._queue) > before)
    return thread


def test_slots_are_granted_in_order_of_arrival(connection):
    client, _ = connection
    slots, served = Slots(1), []
    with slots.acquire(client):
        waiting = [wait_in(slots, client, served, number) for number in range(5)]
        assert served == []
    for thread in waiting:
        thread.join()
    assert served == [0, 1, 2, 3, 4]


def test_no_more_requests_are_served_than_there_are_slots(connection):
    client, _ = connection
    slots, served = Slots(2), []
    with slots.acquire(client), slots.acquire(client):
        thread = wait_in(slots, client, served, "third")
        assert served == []
    thread.join()
    assert served == ["third"]


def test_a_client_that_leaves_is_removed_from_the_queue(connection):
    client, client_end = connection
    slots, raised = Slots(1), []

    def waits():
        try:
            with slots.acquire(client):
                raise AssertionError("a slot was granted to a client that has left")
        except ClientLeft as exc:
            raised.append(exc)

    server_end, other = socket.socketpair()
    with server_end, other, slots.acquire(ClientConnection(server_end)):
        thread = threading.Thread(target=waits)
        thread.start()
        until(lambda: slots._queue)
        client_end.close()
        thread.join(5)
        assert raised
        assert not slots._queue
        with pytest.raises(ClientLeft):
            client.check()


def test_a_client_that_sends_another_request_has_not_left(connection):
    client, client_end = connection
    client_end.send(b"GET / HTTP/1.1\r\n")
    assert not client.has_left()
    server_end, other = socket.socketpair()
    with server_end, other:
        other.send(b"x")
        client.wait_for(server_end)
