"""Fixtures and helpers for the tests of the runtime's client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mes.domain import ModelSpec, Prompt, Reply, no_op
from mes.event_loop import EventLoop, SocketClient
from mes.ollama import OllamaRuntime
from mes.streams import StreamPump

from .scripted import Script, ScriptedRuntime

SPEC = ModelSpec(
    id="tiny",
    tag="smollm2:135m",
    display_name="Tiny",
    enabled=True,
    preload=False,
    pinned=False,
    max_concurrent=1,
    max_queue=1,
    supports_json_mode=True,
    timeout_seconds=60,
    max_tokens=24,
    temperature=0.0,
    context_window=512,
)
OPTIONS = {"num_predict": 24, "temperature": 0, "num_ctx": 512, "seed": 7}


def prompt(text: str = "Say hello", **more: Any) -> Prompt:
    return Prompt(**({"spec": SPEC, "text": text, "system": None, "options": OPTIONS} | more))


def generate(runtime: OllamaRuntime, *, within: float = 5.0, **more: Any) -> Reply:
    """Run one generation, for a client that does not disconnect unless it is given."""
    client, emit = more.pop("client", None) or SocketClient(), more.pop("emit", no_op)
    deadline = time.monotonic() + within
    return runtime.generate(prompt(**more), deadline=deadline, client=client, emit=emit)


@pytest.fixture
def event_loop() -> Iterator[EventLoop]:
    event_loop = EventLoop()
    yield event_loop
    event_loop.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedRuntime]]:
    """Return a function that starts a scripted runtime."""
    servers: list[ScriptedRuntime] = []

    def start(*scripts: Script) -> ScriptedRuntime:
        servers.append(ScriptedRuntime(*scripts))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def runtime_client(event_loop: EventLoop, stream_pump: StreamPump) -> Callable[..., OllamaRuntime]:
    """Return a function that creates the client of a scripted runtime, or of any host."""

    def connect(server: ScriptedRuntime | str, **more: Any) -> OllamaRuntime:
        host = server if isinstance(server, str) else server.url
        return OllamaRuntime(
            **(
                {"host": host, "event_loop": event_loop, "stream_pump": stream_pump, "pool_size": 8}
                | more
            )
        )

    return connect
