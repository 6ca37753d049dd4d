"""A schema that ends an engine is refused for a while; other schemas are not."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from mes.embedded import grammar_check
from mes.embedded.api_errors import ClientLeft, EngineDied, EngineRefused, EngineStopped
from mes.embedded.grammar_check import FORGET_SECONDS, PROBE_WORD, verify

from .conftest import until

BOMB, HARMLESS = "bomb", "harmless"


class FakeEngine:
    """An engine that ends when it compiles the bomb, once `may_end` is set."""

    def __init__(self):
        self.launch = SimpleNamespace(compile_timeout_seconds=60, request_memory_bytes=64 << 20)
        self.compilation = threading.Lock()
        self.verified_grammars = set()
        self.compiled = []
        self.alive = True
        self.was_stopped = False
        self.may_end = threading.Event()
        self.may_end.set()

    def request(self, path, body, client):
        rule = body["grammar"].rpartition(" ")[2]
        self.compiled.append(rule)
        if rule == BOMB:
            assert self.may_end.wait(30)
            self.alive = False
            raise EngineDied(self.exit_reason())
        return {"content": PROBE_WORD}

    def exit_reason(self):
        return "signal: SIGABRT"

    def end_stalled(self):
        self.was_stopped = True

    def death(self):
        return EngineStopped() if self.was_stopped else EngineDied()


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch):
    monkeypatch.setattr(grammar_check, "_refusals", {})


@pytest.fixture
def client(connection):
    return connection[0]


def is_refused(rule, client):
    """Return whether a new engine never gets the rule."""
    engine = FakeEngine()
    try:
        verify(rule, engine, client)
    except EngineRefused:
        return not engine.compiled
    return False


def test_a_schema_that_ends_the_engine_is_refused_at_once_afterwards(client):
    with pytest.raises(EngineRefused, match="EMBEDDED_REQUEST_MEMORY, 64 MiB") as caught:
        verify(BOMB, FakeEngine(), client)
    assert caught.value.status == 400
    assert is_refused(BOMB, client)
    assert not is_refused(HARMLESS, client)


def test_it_is_tried_again_later(client, monkeypatch):
    with pytest.raises(EngineRefused):
        verify(BOMB, FakeEngine(), client)
    later = time.monotonic() + FORGET_SECONDS
    monkeypatch.setattr(grammar_check.time, "monotonic", lambda: later)
    assert not is_refused(BOMB, client)


def test_it_is_refused_also_if_its_client_has_left(connection):
    client, client_end = connection
    engine = FakeEngine()
    engine.may_end.clear()
    client_end.close()
    with pytest.raises(ClientLeft):
        verify(BOMB, engine, client)
    engine.may_end.set()
    until(lambda: grammar_check._refusals)


def test_a_schema_that_waits_for_the_same_engine_is_not_refused(client):
    engine = FakeEngine()
    engine.may_end.clear()
    with ThreadPoolExecutor() as threads:
        bomb = threads.submit(verify, BOMB, engine, client)
        until(lambda: engine.compiled)
        harmless = threads.submit(verify, HARMLESS, engine, client)
        time.sleep(0.05)  # without the lock, the engine would have it by now
        engine.may_end.set()
        assert isinstance(bomb.exception(), EngineRefused)
        assert isinstance(harmless.exception(), EngineStopped)
    assert engine.compiled == [BOMB]
    assert not is_refused(HARMLESS, client)


def test_an_engine_that_the_program_stops_says_nothing_about_a_schema(client):
    engine = FakeEngine()
    engine.was_stopped = True
    with pytest.raises(EngineDied):
        verify(BOMB, engine, client)
    assert not grammar_check._refusals


def test_a_verified_rule_is_not_compiled_again(client):
    engine = FakeEngine()
    for _ in range(2):
        verify(HARMLESS, engine, client)
    assert engine.compiled == [HARMLESS]
