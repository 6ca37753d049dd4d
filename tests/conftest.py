"""Fixtures for tests of the whole service: a fake Ollama, and the service in front of it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mes.streams import StreamPump
from tests.support.service import FakeOllama, Service

# Shells start background programs with SIGINT ignored, and child processes inherit that. The tests
# of Ctrl-C need child processes that receive it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def stream_pump() -> Iterator[StreamPump]:
    stream_pump = StreamPump()
    yield stream_pump
    stream_pump.close()


@pytest.fixture
def fake_ollama() -> Iterator[FakeOllama]:
    """A new fake Ollama with the models of the shipped catalog on disk."""
    with FakeOllama() as fake:
        yield fake


@pytest.fixture
def service(tmp_path: Path, fake_ollama: FakeOllama) -> Iterator[Callable[..., Service]]:
    """Return a function that starts a service in front of the fake Ollama, with its settings.

    An example is `service(models={...}, MAX_LOADED_MODELS=1)`. The services stop after the test.
    """
    with ExitStack() as running:

        def start(**options: Any) -> Service:
            options.setdefault("ollama_url", fake_ollama.url)
            return running.enter_context(Service(tmp_path, **options))

        yield start
