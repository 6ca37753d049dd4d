"""The pool shares, evicts and expires loaded models; loads wait in order of arrival."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager

import pytest

from mes.embedded import options
from mes.embedded.api_errors import Busy, ClientLeft, EngineDied, EngineLoadFailed
from mes.embedded.client_connection import ClientConnection
from mes.embedded.model_pool import ModelPool
from mes.embedded.model_store import ModelStore
from mes.embedded.runtime_settings import EmbeddedSettings

from .conftest import until
from .files import gguf

FOREVER = float("inf")


class FakeEngine:
    def __init__(self, harness, model, launch):
        self.harness, self.model, self.launch, self.alive = harness, model, launch, True

    def load(self, timeout_seconds):
        assert self.harness.may_load.wait(10)
        if self.harness.failing:
            raise EngineLoadFailed("the load fails")

    def stop(self):
        self.alive = False


class PoolHarness:
    """A pool of fake engines; their loads end when the test sets `may_load`."""

    def __init__(self, folder, **settings):
        for name in "abcd":
            gguf(folder / f"{name}.gguf")
        self.store, self.engines, self.failing = ModelStore(folder), [], False
        self.may_load = threading.Event()
        self.may_load.set()
        self.pool = ModelPool(
            EmbeddedSettings(**{"max_loaded_models": 2, **settings}), self.create_engine
        )
        self.connection, self.client = socket.socketpair()

    def create_engine(self, model, launch):
        self.engines.append(FakeEngine(self, model, launch))
        return self.engines[-1]

    @contextmanager
    def using(self, name, keep_alive=FOREVER, **load_options):
        model, client = self.store.find(name), ClientConnection(self.connection)
        parsed = options.parse_options(load_options)
        with self.pool.engine(model, parsed, keep_alive, client) as engine:
            yield engine

    def touch(self, name, keep_alive=FOREVER, **load_options):
        with self.using(name, keep_alive, **load_options) as engine:
            return engine

    @property
    def loaded(self):
        return sorted(loaded.model.name.path for loaded in self.pool.running())


@pytest.fixture
def start_harness(tmp_path):
    harnesses = []

    def start(**settings):
        harnesses.append(PoolHarness(tmp_path, **settings))
        return harnesses[-1]

    yield start
    for harness in harnesses:
        harness.pool.close()
        harness.connection.close()
        harness.client.close()


@pytest.fixture
def harness(start_harness):
    return start_harness()


@pytest.fixture
def threads():
    with ThreadPoolExecutor() as executor:
        yield executor


def test_a_model_is_loaded_once_for_simultaneous_requests(harness, threads):
    harness.may_load.clear()
    calls = [threads.submit(harness.touch, "a") for _ in range(8)]
    until(lambda: harness.engines)
    assert harness.loaded == []
    harness.may_load.set()
    assert len({call.result() for call in calls}) == len(harness.engines) == 1


def test_a_load_does_not_delay_requests_for_loaded_models(harness, threads):
    harness.touch("a")
    harness.may_load.clear()
    loading = threads.submit(harness.touch, "b")
    until(lambda: len(harness.engines) == 2)
    assert harness.touch("a") is harness.engines[0]
    assert not loading.done()
    harness.may_load.set()
    loading.result()


def test_the_least_recently_used_idle_model_is_evicted(harness):
    harness.touch("a")
    harness.touch("b")
    harness.touch("a")
    harness.touch("c")
    assert harness.loaded == ["a", "c"]


def test_a_busy_model_is_never_evicted(harness):
    with harness.using("a") as busy:
        harness.touch("b")
        harness.touch("c")
        assert harness.loaded == ["a", "c"]
        assert busy.alive


def test_a_load_waits_while_all_models_are_busy(harness, threads):
    with harness.using("a"):
        with harness.using("b"):
            waiting = threads.submit(harness.touch, "c")
            assert wait([waiting], timeout=0.3).not_done
            assert len(harness.engines) == 2
        waiting.result()
        assert harness.loaded == ["a", "c"]


def test_loads_are_made_in_order_of_arrival_even_if_a_later_one_could_be_served(
    start_harness, threads
):
    harness = start_harness(max_loaded_models=1)
    served = []

    def ask(name):
        with harness.using(name):
            served.append(name)

    with harness.using("a"):
        calls = []
        for name in "bcbc":
            calls.append(threads.submit(ask, name))
            until(lambda: len(harness.pool._queue) == len(calls))
    wait(calls)
    assert served == ["b", "c", "b", "c"]
    assert len(harness.engines) == 5


def test_requests_for_a_loaded_model_do_not_wait_for_queued_loads(start_harness, threads):
    harness = start_harness(max_loaded_models=1)
    with harness.using("a") as engine:
        waiting = threads.submit(harness.touch, "b")
        until(lambda: harness.pool._queue)
        assert harness.touch("a") is engine
        assert not waiting.done()


def test_a_load_without_room_in_time_is_answered_with_busy(start_harness):
    harness = start_harness(max_loaded_models=1, load_timeout_seconds=0.05)
    with harness.using("a"), pytest.raises(Busy, match="server busy, please try again"):
        harness.touch("b")


def test_a_client_that_waits_for_room_can_leave(harness):
    with harness.using("a"), harness.using("b"):
        harness.client.close()
        with pytest.raises(ClientLeft):
            harness.touch("c")


def test_a_model_expires_after_its_keep_alive(harness):
    engine = harness.touch("a", keep_alive=0.05)
    until(lambda: not harness.loaded)
    assert not engine.alive


def test_a_model_in_use_does_not_expire(harness):
    with harness.using("a", keep_alive=0.01) as engine:
        harness.touch("b", keep_alive=0.02)
        until(lambda: harness.loaded == ["a"])
        assert engine.alive
    until(lambda: not engine.alive)


def test_keep_alive_stays_as_the_last_request_set_it(harness):
    harness.touch("a", keep_alive=FOREVER)
    harness.touch("a", keep_alive=None)
    (loaded,) = harness.pool.running()
    assert loaded.keep_alive == FOREVER


def test_an_unload_waits_for_the_active_requests(harness):
    with harness.using("a") as engine:
        harness.pool.unload(harness.store.find("a"))
        assert engine.alive
        assert harness.loaded == ["a"]
    until(lambda: not engine.alive)
    assert harness.touch("a") is not engine


def test_unloading_a_model_that_is_not_loaded_does_nothing(harness):
    harness.pool.unload(harness.store.find("a"))
    assert harness.loaded == []


def test_other_load_options_reload_the_model_once_it_is_idle(harness, threads):
    with harness.using("a", num_ctx=64) as first:
        other = threads.submit(harness.touch, "a", num_ctx=32)
        until(lambda: harness.pool.running()[0].draining)
        assert first.alive
    assert other.result().launch.context_length == 32
    assert harness.touch("a").launch.context_length == 32
    assert len(harness.engines) == 2


def test_a_file_that_is_replaced_is_loaded_by_the_next_request(harness):
    first = harness.touch("a")
    path = harness.store.find("a").path
    path.write_bytes(path.read_bytes() + b"more")
    second = harness.touch("a")
    assert second.model.digest != first.model.digest
    assert (first.alive, harness.touch("a") is second) == (False, True)


def test_a_context_beyond_the_models_own_is_clamped(harness):
    assert harness.touch("a", num_ctx=4096) is harness.touch("a", num_ctx=8192)
    assert harness.engines[0].launch.context_length == 128


def test_a_failed_load_fails_all_requests_that_wait_for_it(harness, threads):
    harness.failing = True
    harness.may_load.clear()
    calls = [threads.submit(harness.touch, "a") for _ in range(3)]
    until(lambda: harness.engines)
    harness.may_load.set()
    for call in calls:
        with pytest.raises(EngineLoadFailed):
            call.result()
    harness.failing = False
    assert harness.touch("a").alive


def test_an_engine_that_died_is_replaced(harness):
    first = harness.touch("a")
    first.alive = False
    assert harness.loaded == []
    assert harness.touch("a") is not first


def test_an_engine_that_died_in_the_middle_takes_no_new_requests(harness):
    with pytest.raises(EngineDied), harness.using("a") as first:
        raise EngineDied
    assert harness.touch("a") is not first


def test_closing_the_pool_stops_every_engine(harness):
    engines = [harness.touch("a"), harness.touch("b")]
    harness.pool.close()
    assert not any(engine.alive for engine in engines)


def test_closing_the_pool_stops_an_engine_that_still_loads(harness, threads):
    harness.may_load.clear()
    loading = threads.submit(harness.touch, "a")
    until(lambda: harness.engines)
    harness.pool.close()
    assert not harness.engines[0].alive
    harness.may_load.set()
    loading.result()
