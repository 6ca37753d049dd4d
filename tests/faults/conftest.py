"""A service of two workers in front of a runtime that fails on demand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.client import MODEL
from tests.faults.disconnects import ONE_AT_A_TIME
from tests.faults.request_bodies import ABSENT, FAILING
from tests.support.service import FakeOllama, Service

WORKERS = 2
# `WAIT_SLOTS` of them may wait for a model at a time; the others are for all other requests.
THREADS = 32
WAIT_SLOTS = THREADS - 8
MODELS = {
    MODEL: {"max_concurrent": WORKERS * WAIT_SLOTS, "max_queue": 0},
    ONE_AT_A_TIME: {"max_concurrent": 1, "max_queue": 1, "timeout": 600},
    ABSENT: {},
    FAILING: {},
}


@pytest.fixture(scope="module")
def runtime() -> Iterator[FakeOllama]:
    on_disk = ",".join({*MODELS} - {ABSENT})
    with FakeOllama(f"--models={on_disk}", "--scripts=tests.faults.runtime_faults") as fake:
        out_of_memory = {"times": 10**9, "text": "not enough memory"}
        fake.control(load_failures={FAILING: out_of_memory})
        yield fake


@pytest.fixture(scope="module")
def service(runtime: FakeOllama, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {
        "WEB_CONCURRENCY": WORKERS,
        "THREADS": THREADS,
        "MAX_BODY_BYTES": 1 << 20,
        "MAX_LOADED_MODELS": 3,
        "LOAD_RETRY_PAUSE": 0,
    }
    folder = tmp_path_factory.mktemp("service")
    with Service(folder, ollama_url=runtime.url, models=MODELS, **settings) as running:
        running.wait_until_ready()
        yield running
