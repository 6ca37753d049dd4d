"""A service of two workers in front of a runtime that misbehaves on demand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.bodies import ABSENT, FAILING
from tests.faults.client import MODEL
from tests.faults.leaving import LONELY
from tests.support.service import FakeOllama, Service

WORKERS = 2
# Of them `SEATS` may wait for a model at a time; the others are for everything else.
THREADS = 32
SEATS = THREADS - 8
MODELS = {
    MODEL: {"max_concurrent": WORKERS * SEATS, "max_queue": 0},
    LONELY: {"max_concurrent": 1, "max_queue": 1, "timeout": 600},
    ABSENT: {},
    FAILING: {},
}


@pytest.fixture(scope="module")
def runtime() -> Iterator[FakeOllama]:
    on_disk = ",".join({*MODELS} - {ABSENT})
    with FakeOllama(f"--models={on_disk}", "--scripts=tests.faults.upstream") as fake:
        out_of_memory = {"times": 10**9, "text": "not enough memory"}
        fake.control(load_failures={FAILING: out_of_memory})
        yield fake


@pytest.fixture(scope="module")
def service(runtime: FakeOllama, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    told = {
        "WEB_CONCURRENCY": WORKERS,
        "THREADS": THREADS,
        "MAX_LOADED_MODELS": 3,
        "LOAD_RETRY_PAUSE": 0,
    }
    folder = tmp_path_factory.mktemp("service")
    with Service(folder, ollama_url=runtime.url, models=MODELS, **told) as running:
        running.wait_until_ready()
        yield running
