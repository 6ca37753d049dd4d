"""Fixtures for tests of the service as a whole: a runtime to talk to, and the service itself."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mes.streams import StreamPump
from tests.support.service import FakeOllama, Service

# Shells start what runs in the background with SIGINT ignored, and programs pass that on; the tests
# of Ctrl-C need those they start to hear it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def stream_pump() -> Iterator[StreamPump]:
    stream_pump = StreamPump()
    yield stream_pump
    stream_pump.close()


@pytest.fixture
def fake_ollama() -> Iterator[FakeOllama]:
    """A fresh fake runtime with the models of the shipped catalog on disk."""
    with FakeOllama() as fake:
        yield fake


@pytest.fixture
def service(tmp_path: Path, fake_ollama: FakeOllama) -> Iterator[Callable[..., Service]]:
    """Starts services in front of the fake runtime: `service(models={...}, MAX_LOADED_MODELS=1)`.

    All of them end with the test.
    """
    with ExitStack() as running:

        def start(**told: Any) -> Service:
            told.setdefault("ollama_url", fake_ollama.url)
            return running.enter_context(Service(tmp_path, **told))

        yield start
