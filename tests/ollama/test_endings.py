"""Deadlines and disconnects: every exchange ends in time, and the runtime notices."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from mes.errors import (
    ClientDisconnected,
    GenerationTimeout,
    LoadTimeout,
    MesError,
    RuntimeUnavailable,
)
from mes.event_loop import EventLoop, SocketClient, Timer

from .conftest import SPEC, generate
from .scripted import END, GOOD, STREAM, Peer, answers, chunk, head, last, once, streamed, token

DEADLINE_SECONDS = 0.4
# The scripted runtimes continue for 6 s and more, so an exchange that ends within this time was
# ended by the client, also on a busy machine.
SLACK_SECONDS = 4.0


class Stuck:
    """A runtime that starts to answer and then takes longer than any deadline."""

    def __init__(self, start: bytes, drip: bytes = b"") -> None:
        self.reached = threading.Event()
        self.client_left = threading.Event()
        self._start, self._drip = start, drip

    def __call__(self, peer: Peer) -> None:
        peer.read_request()
        peer.send(self._start)
        self.reached.set()
        with contextlib.suppress(OSError):
            peer.drip(self._drip)
            if not self._drip and not peer.closed_within(30):
                return
        self.client_left.set()


def stuck(phase: str) -> Stuck:
    return {
        "before the first byte": Stuck(b""),
        "dripping the status line": Stuck(b"", b"HTTP/1.1 200 OK" + b"k" * 300),
        "dripping the headers": Stuck(b"HTTP/1.1 200 OK\r\n", b"X: x\r\n" * 60),
        "after the headers": Stuck(STREAM),
        "dripping a chunk size": Stuck(STREAM, b"0" * 300),
        "dripping a chunk": Stuck(STREAM + b"200\r\n", token("x" * 400)),
        "dripping lines": Stuck(STREAM, chunk(token("a")) * 10),
        "dripping a stated length": Stuck(head(content_length="9000"), b" " * 300),
        "dripping to the close": Stuck(head(connection="close"), b" " * 300),
        "after some text": Stuck(STREAM + chunk(token("Hel"))),
        "dripping interim answers": Stuck(b"", head(103) * 20),
        "dripping a refusal": Stuck(head(500, content_length="900"), b" " * 300),
    }[phase]


PHASES = [
    "before the first byte",
    "dripping the status line",
    "dripping the headers",
    "after the headers",
    "dripping a chunk size",
    "dripping a chunk",
    "dripping lines",
    "dripping a stated length",
    "dripping to the close",
    "after some text",
    "dripping interim answers",
    "dripping a refusal",
]


@contextlib.contextmanager
def lasting(seconds: float):
    """Fail where the block ends before `seconds`, or so late that the runtime may have ended it."""
    started = time.monotonic()
    yield
    assert seconds - 0.05 < time.monotonic() - started < seconds + SLACK_SECONDS


@pytest.mark.parametrize("phase", PHASES)
def test_the_deadline_holds_in_every_phase(serve, runtime_client, phase):
    script = stuck(phase)

    with lasting(DEADLINE_SECONDS), pytest.raises(GenerationTimeout) as caught:
        generate(runtime_client(serve(script)), within=DEADLINE_SECONDS)

    assert caught.value.generated_tokens == (phase == "after some text")
    assert script.client_left.wait(SLACK_SECONDS)


@pytest.mark.parametrize("phase", PHASES)
def test_a_client_that_disconnects_ends_the_generation_in_every_phase(serve, runtime_client, phase):
    script, client = stuck(phase), SocketClient()

    def hang_up() -> None:
        script.reached.wait(30)
        client.mark_disconnected()

    threading.Thread(target=hang_up).start()
    with lasting(0), pytest.raises(ClientDisconnected):
        generate(runtime_client(serve(script)), client=client)

    assert script.client_left.wait(SLACK_SECONDS)


def test_nothing_is_sent_for_a_client_that_has_disconnected(serve, runtime_client):
    server, client = serve(stuck("before the first byte")), SocketClient()
    client.mark_disconnected()

    with lasting(0), pytest.raises(ClientDisconnected):
        generate(runtime_client(server), client=client)

    assert server.asked == []


def test_a_deadline_that_has_passed_costs_no_connection(serve, runtime_client):
    server = serve(stuck("before the first byte"))

    with lasting(0), pytest.raises(GenerationTimeout):
        generate(runtime_client(server), within=-1)

    assert server.connections == 0


def test_the_deadline_holds_while_a_connection_is_not_accepted(runtime_client):
    with socket.socket() as listener, contextlib.ExitStack() as fillers:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(4):  # more than fit into the backlog, so that the next one is not accepted
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))

        with lasting(DEADLINE_SECONDS), pytest.raises(GenerationTimeout):
            generate(runtime_client(f"http://127.0.0.1:{port}"), within=DEADLINE_SECONDS)
        with lasting(0.2), pytest.raises(RuntimeUnavailable, match="cannot be reached"):
            generate(runtime_client(f"http://127.0.0.1:{port}", connect_timeout_seconds=0.2))


def test_the_deadline_holds_while_the_prompt_is_not_read(serve, runtime_client):
    left = threading.Event()

    def not_reading(peer: Peer) -> None:
        left.wait(30)

    with lasting(DEADLINE_SECONDS), pytest.raises(GenerationTimeout):
        generate(runtime_client(serve(not_reading)), text="x" * 20_000_000, within=DEADLINE_SECONDS)
    left.set()


def test_a_prompt_may_take_longer_to_send_than_the_connection_to_make(serve, runtime_client):
    def busy(peer: Peer) -> None:
        while not never.wait(0.3):  # the prompt fills the buffers of the kernel meanwhile
            if peer.read_request() is None:
                return
            peer.send(GOOD)

    never = threading.Event()
    server = serve(busy)
    runtime = runtime_client(server, connect_timeout_seconds=0.1)

    for _ in range(2):
        assert generate(runtime, text="x" * 20_000_000).text == "Hello"
    assert server.connections == 1


def test_a_load_has_its_own_deadline(serve, runtime_client):
    script = stuck("before the first byte")

    with lasting(DEADLINE_SECONDS), pytest.raises(LoadTimeout):
        runtime_client(serve(script)).load(SPEC, deadline=time.monotonic() + DEADLINE_SECONDS)

    assert script.client_left.wait(SLACK_SECONDS)


@pytest.mark.parametrize("phase", ["before the first byte", "dripping a stated length"])
@pytest.mark.parametrize("method", ["loaded", "pulled", "version"])
def test_short_requests_do_not_wait_long(serve, runtime_client, phase, method):
    runtime = runtime_client(serve(stuck(phase)), reply_timeout_seconds=DEADLINE_SECONDS)

    with lasting(DEADLINE_SECONDS), pytest.raises(RuntimeUnavailable):
        getattr(runtime, method)()


@pytest.mark.parametrize("method", ["card", "unload"])
def test_short_requests_about_a_model_do_not_wait_long(serve, runtime_client, method):
    runtime = runtime_client(
        serve(stuck("before the first byte")), reply_timeout_seconds=DEADLINE_SECONDS
    )

    with lasting(DEADLINE_SECONDS), pytest.raises(RuntimeUnavailable):
        getattr(runtime, method)("tiny")


def test_a_connection_that_missed_a_deadline_is_never_used_again(serve, runtime_client):
    def good(peer: Peer) -> None:
        while peer.read_request() is not None:
            peer.send(GOOD)

    server = serve(stuck("after some text"), good)
    runtime = runtime_client(server)
    with pytest.raises(GenerationTimeout):
        generate(runtime, within=DEADLINE_SECONDS)

    assert generate(runtime).text == "Hello"
    assert server.connections == 2


def test_a_finished_response_does_not_wait_for_its_last_chunk(serve, runtime_client):
    done = GOOD.removesuffix(b"0\r\n\r\n")

    with lasting(0):
        assert generate(runtime_client(serve(Stuck(done)))).text == "Hello"


class RecordingEventLoop(EventLoop):
    """Keeps the callback of every timer, so that a test can call one that was cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.callbacks: list[Callable[[], None]] = []

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        self.callbacks.append(callback)
        return super().call_at(when, callback)


def test_a_late_timer_does_not_affect_the_next_request(serve, runtime_client):
    event_loop, begun, may_end = RecordingEventLoop(), threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(GOOD)
        peer.read_request()
        peer.send(STREAM + chunk(token("Good")))
        begun.set()
        may_end.wait(30)
        peer.send(chunk(token("bye")) + chunk(last()) + END)

    server = serve(script)
    runtime = runtime_client(server, event_loop=event_loop)
    generate(runtime)
    with ThreadPoolExecutor(1) as threads:
        second = threads.submit(generate, runtime)
        begun.wait(30)
        event_loop.callbacks[0]()
        may_end.set()

        assert second.result().text == "Goodbye"
    assert server.connections == 1


class Listener:
    """Receives the events of a generation. A weak reference shows when it is freed."""

    def __call__(self, *events: object) -> None:
        pass


@pytest.mark.parametrize(
    "script",
    [answers(GOOD), once(streamed(token("Hel"))), stuck("after some text")],
    ids=["whole", "broken off", "too late"],
)
def test_a_generation_leaves_no_reference_cycle(serve, runtime_client, script):
    listener = Listener()
    alive = weakref.ref(listener)
    runtime = runtime_client(serve(script))
    gc.disable()
    try:
        with contextlib.suppress(MesError):
            generate(runtime, within=DEADLINE_SECONDS, emit=listener)
        del listener
        assert alive() is None
    finally:
        gc.enable()
