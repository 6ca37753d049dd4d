"""Fixtures that last as long as a module of tests: a start of the service takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.integration.helpers import as_new
from tests.support.service import FakeOllama, Service


@pytest.fixture(scope="module")
def runtime() -> Iterator[FakeOllama]:
    """The fake runtime that the tests of a module share."""
    with FakeOllama() as fake:
        yield fake


@pytest.fixture(scope="module")
def start(
    tmp_path_factory: pytest.TempPathFactory, runtime: FakeOllama
) -> Iterator[Callable[..., Service]]:
    """Starts services in front of the runtime; all of them end with the module."""
    with ExitStack() as running:

        def start(**told: Any) -> Service:
            told.setdefault("ollama_url", runtime.url)
            folder = tmp_path_factory.mktemp("service")
            service = running.enter_context(Service(folder, **told))
            service.wait_until_ready()
            return service

        yield start


@pytest.fixture
def clean(runtime: FakeOllama) -> None:
    """A runtime that does what runtimes do and has counted nothing."""
    if not runtime.running:
        runtime.start()
    as_new(runtime)
