"""The pool of loaded models: what is shared, evicted, expired, and who waits for whom."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager

import pytest

from mes.embedded import options
from mes.embedded.api_errors import Busy, ClientLeft, EngineDied, EngineLoadFailed
from mes.embedded.model_pool import ModelPool
from mes.embedded.model_store import ModelStore
from mes.embedded.runtime_settings import EmbeddedSettings
from mes.embedded.slots import ClientConnection

from .conftest import until
from .files import gguf

FOREVER = float("inf")


class FakeEngine:
    def __init__(self, world, model, launch):
        self.world, self.model, self.launch, self.alive = world, model, launch, True

    def load(self, timeout_seconds):
        assert self.world.may_load.wait(10)
        if self.world.failing:
            raise EngineLoadFailed("no")

    def stop(self):
        self.alive = False


class World:
    """A pool over engines that load as long as the test wants them to"""

    def __init__(self, folder, **settings):
        for name in "abcd":
            gguf(folder / f"{name}.gguf")
        self.store, self.engines, self.failing = ModelStore(folder), [], False
        self.may_load = threading.Event()
        self.may_load.set()
        self.pool = ModelPool(EmbeddedSettings(**{"max_loaded_models": 2, **settings}), self.make)
        self.connection, self.client = socket.socketpair()

    def make(self, model, launch):
        self.engines.append(FakeEngine(self, model, launch))
        return self.engines[-1]

    @contextmanager
    def using(self, name, keep_alive=FOREVER, **given):
        model, caller = self.store.find(name), ClientConnection(self.connection)
        with self.pool.engine(model, options.parse_options(given), keep_alive, caller) as engine:
            yield engine

    def touch(self, name, keep_alive=FOREVER, **given):
        with self.using(name, keep_alive, **given) as engine:
            return engine

    @property
    def loaded(self):
        return sorted(one.model.name.path for one in self.pool.running())


@pytest.fixture
def make(tmp_path):
    worlds = []

    def made(**settings):
        worlds.append(World(tmp_path, **settings))
        return worlds[-1]

    yield made
    for world in worlds:
        world.pool.close()
        world.connection.close()
        world.client.close()


@pytest.fixture
def world(make):
    return make()


@pytest.fixture
def threads():
    with ThreadPoolExecutor() as executor:
        yield executor


def test_a_model_is_loaded_once_for_all_who_ask_at_the_same_time(world, threads):
    world.may_load.clear()
    calls = [threads.submit(world.touch, "a") for _ in range(8)]
    until(lambda: world.engines)
    assert world.loaded == []
    world.may_load.set()
    assert len({call.result() for call in calls}) == len(world.engines) == 1


def test_a_load_holds_up_no_other_model(world, threads):
    world.touch("a")
    world.may_load.clear()
    loading = threads.submit(world.touch, "b")
    until(lambda: len(world.engines) == 2)
    assert world.touch("a") is world.engines[0]
    assert not loading.done()
    world.may_load.set()
    loading.result()


def test_the_least_recently_used_idle_model_makes_room(world):
    world.touch("a")
    world.touch("b")
    world.touch("a")
    world.touch("c")
    assert world.loaded == ["a", "c"]


def test_a_busy_model_is_never_evicted(world):
    with world.using("a") as busy:
        world.touch("b")
        world.touch("c")
        assert world.loaded == ["a", "c"]
        assert busy.alive


def test_where_all_are_busy_a_load_waits_until_one_is_idle(world, threads):
    with world.using("a"):
        with world.using("b"):
            waiting = threads.submit(world.touch, "c")
            assert wait([waiting], timeout=0.3).not_done
            assert len(world.engines) == 2
        waiting.result()
        assert world.loaded == ["a", "c"]


def test_loads_are_made_in_order_of_arrival_though_a_later_one_could_go_first(make, threads):
    world = make(max_loaded_models=1)
    served = []

    def ask(name):
        with world.using(name):
            served.append(name)

    with world.using("a"):
        calls = []
        for name in "bcbc":
            calls.append(threads.submit(ask, name))
            until(lambda: len(world.pool._line) == len(calls))
    wait(calls)
    assert served == ["b", "c", "b", "c"]
    assert len(world.engines) == 5


def test_who_uses_a_loaded_model_passes_those_who_wait_for_a_load(make, threads):
    world = make(max_loaded_models=1)
    with world.using("a") as engine:
        waiting = threads.submit(world.touch, "b")
        until(lambda: world.pool._line)
        assert world.touch("a") is engine
        assert not waiting.done()


def test_a_load_that_finds_no_room_in_time_is_told_that_the_server_is_busy(make):
    world = make(max_loaded_models=1, load_timeout_seconds=0.05)
    with world.using("a"), pytest.raises(Busy, match="server busy, please try again"):
        world.touch("b")


def test_a_caller_who_waits_for_room_can_leave(world):
    with world.using("a"), world.using("b"):
        world.client.close()
        with pytest.raises(ClientLeft):
            world.touch("c")


def test_a_model_expires_when_it_was_idle_for_its_keep_alive(world):
    engine = world.touch("a", keep_alive=0.05)
    until(lambda: not world.loaded)
    assert not engine.alive


def test_a_model_in_use_does_not_expire(world):
    with world.using("a", keep_alive=0.01) as engine:
        world.touch("b", keep_alive=0.02)
        until(lambda: world.loaded == ["a"])
        assert engine.alive
    until(lambda: not engine.alive)


def test_keep_alive_stays_as_the_last_request_set_it(world):
    world.touch("a", keep_alive=FOREVER)
    world.touch("a", keep_alive=None)
    (loaded,) = world.pool.running()
    assert loaded.keep_alive == FOREVER


def test_an_unload_waits_for_the_requests_that_run(world):
    with world.using("a") as engine:
        world.pool.unload(world.store.find("a"))
        assert engine.alive
        assert world.loaded == ["a"]
    until(lambda: not engine.alive)
    assert world.touch("a") is not engine


def test_unloading_what_is_not_loaded_does_nothing(world):
    world.pool.unload(world.store.find("a"))
    assert world.loaded == []


def test_other_load_options_reload_the_model_once_it_is_idle(world, threads):
    with world.using("a", num_ctx=64) as first:
        other = threads.submit(world.touch, "a", num_ctx=32)
        until(lambda: world.pool.running()[0].leaving)
        assert first.alive
    assert other.result().launch.context_length == 32
    assert world.touch("a").launch.context_length == 32
    assert len(world.engines) == 2


def test_a_context_beyond_the_models_own_is_clamped(world):
    assert world.touch("a", num_ctx=4096) is world.touch("a", num_ctx=8192)
    assert world.engines[0].launch.context_length == 128


def test_all_who_wait_for_a_load_that_fails_are_told(world, threads):
    world.failing = True
    world.may_load.clear()
    calls = [threads.submit(world.touch, "a") for _ in range(3)]
    until(lambda: world.engines)
    world.may_load.set()
    for call in calls:
        with pytest.raises(EngineLoadFailed):
            call.result()
    world.failing = False
    assert world.touch("a").alive


def test_an_engine_that_died_is_replaced(world):
    first = world.touch("a")
    first.alive = False
    assert world.loaded == []
    assert world.touch("a") is not first


def test_an_engine_that_died_in_the_middle_takes_no_new_requests(world):
    with pytest.raises(EngineDied), world.using("a") as first:
        raise EngineDied
    assert world.touch("a") is not first


def test_closing_the_pool_stops_every_engine(world):
    engines = [world.touch("a"), world.touch("b")]
    world.pool.close()
    assert not any(engine.alive for engine in engines)


def test_closing_the_pool_stops_an_engine_that_still_loads(world, threads):
    world.may_load.clear()
    loading = threads.submit(world.touch, "a")
    until(lambda: world.engines)
    world.pool.close()
    assert not world.engines[0].alive
    world.may_load.set()
    loading.result()
