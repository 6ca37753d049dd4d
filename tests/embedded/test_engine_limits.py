"""An engine that stalls is ended, whether or not the client still waits."""

import socket
import threading
import time
from types import SimpleNamespace

import pytest

from mes.embedded.api_errors import ClientLeft
from mes.embedded.engine_limits import EngineStalled, SilenceLimit, finish_without_client


class SilentEngine:
    """An engine that answers a request only when `answer` is called."""

    def __init__(self):
        self.launch = SimpleNamespace(compile_timeout_seconds=0.2)
        self.last_event = 0.0
        self.ended = threading.Event()
        self._here, self._there = socket.socketpair()

    def request(self, path, body, client):
        client.wait_for(self._here)
        return path, body

    def answer(self):
        self._there.send(b"x")

    def end_stalled(self):
        self.ended.set()


class StreamingEngine(SilentEngine):
    """An engine whose streams go on, and that answers a while after the limit."""

    def __init__(self):
        super().__init__()
        self._began = time.monotonic()

    @property
    def last_event(self):
        now = time.monotonic()
        if now > self._began + 3 * self.launch.compile_timeout_seconds:
            self.answer()
        return now

    @last_event.setter
    def last_event(self, value):
        pass


def request_within_limit(engine, path, body, client, *, hears_streams):
    limit = SilenceLimit(engine, hears_streams=hears_streams)
    return finish_without_client(lambda: engine.request(path, body, limit), client)


def test_an_answer_in_time_is_returned(connection):
    engine = SilentEngine()
    engine.answer()
    answer = request_within_limit(engine, "/x", {"a": 1}, connection[0], hears_streams=True)
    assert answer == ("/x", {"a": 1})


@pytest.mark.parametrize("hears_streams", [True, False])
def test_a_silent_engine_is_ended(connection, hears_streams):
    engine = SilentEngine()
    with pytest.raises(EngineStalled):
        request_within_limit(engine, "/x", {}, connection[0], hears_streams=hears_streams)
    assert engine.ended.is_set()


def test_an_engine_is_ended_also_after_the_client_has_left(connection):
    engine = SilentEngine()
    connection[1].close()
    with pytest.raises(ClientLeft):
        request_within_limit(engine, "/x", {}, connection[0], hears_streams=True)
    assert engine.ended.wait(10)


def test_an_engine_that_sends_tokens_to_others_is_not_stalled(connection):
    engine = StreamingEngine()
    assert request_within_limit(engine, "/x", {}, connection[0], hears_streams=True)
    assert not engine.ended.is_set()


def test_tokens_of_others_do_not_excuse_a_slow_template(connection):
    engine = StreamingEngine()
    engine.answer = lambda: None
    with pytest.raises(EngineStalled):
        request_within_limit(engine, "/x", {}, connection[0], hears_streams=False)
