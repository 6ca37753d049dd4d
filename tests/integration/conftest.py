"""Fixtures for a whole module of tests, because the service takes seconds to start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.integration.helpers import restore_defaults
from tests.support.service import FakeOllama, Service


@pytest.fixture(scope="module")
def runtime() -> Iterator[FakeOllama]:
    """Start the fake runtime that the tests of a module share."""
    with FakeOllama() as fake:
        yield fake


@pytest.fixture(scope="module")
def start(
    tmp_path_factory: pytest.TempPathFactory, runtime: FakeOllama
) -> Iterator[Callable[..., Service]]:
    """Return a function that starts services in front of the runtime; all end with the module."""
    with ExitStack() as running:

        def start(**settings: Any) -> Service:
            settings.setdefault("ollama_url", runtime.url)
            folder = tmp_path_factory.mktemp("service")
            service = running.enter_context(Service(folder, **settings))
            service.wait_until_ready()
            return service

        yield start


@pytest.fixture
def clean(runtime: FakeOllama) -> None:
    """Reset the behaviour and the counters of the runtime."""
    if not runtime.running:
        runtime.start()
    restore_defaults(runtime)
