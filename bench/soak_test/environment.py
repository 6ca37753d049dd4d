"""The service and the fake runtime of a soak test, and their limits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.support.service import FakeOllama, Service

WORKERS = 3
PLACES = 2
CONCURRENT = 3
MODELS = ("mistral:7b", "phi3:mini", "gemma:2b", "codellama:7b")

TOKENS = 5
TOKEN_MS = 10
FIRST_TOKEN_MS = 20
LOAD_SECONDS = 0.2

TIMEOUT_SECONDS = 5
QUEUE_SECONDS = 30
LOAD_TIMEOUT_SECONDS = 5
UNLOAD_TIMEOUT_SECONDS = 5
LOCK_SECONDS = 2
# The time in which MES must notice that a model was updated, also while a worker is stopped.
UNNOTICED_SECONDS = 15
# The longest time that a request may take, as docs/operations.md computes it.
DEADLINE_SECONDS = (
    QUEUE_SECONDS + UNLOAD_TIMEOUT_SECONDS + 2 * LOAD_TIMEOUT_SECONDS + TIMEOUT_SECONDS
)

_ENTRY = {"max_concurrent": CONCURRENT, "max_queue": 100, "timeout": TIMEOUT_SECONDS}
_SETTINGS: dict[str, Any] = {
    "WEB_CONCURRENCY": WORKERS,
    "MAX_LOADED_MODELS": PLACES,
    "QUEUE_TIMEOUT": QUEUE_SECONDS,
    "LOAD_TIMEOUT": LOAD_TIMEOUT_SECONDS,
    "UNLOAD_TIMEOUT": UNLOAD_TIMEOUT_SECONDS,
    "LOCK_TIMEOUT": LOCK_SECONDS,
    "SWAP_PATIENCE": 2,
    "LOAD_RETRY_PAUSE": 0.2,
    "COOLDOWN": 1,
    "COOLDOWN_MAX": 2,
    # One heap for all threads of a process. With several heaps its size depends on which threads
    # served which requests.
    "MALLOC_ARENA_MAX": 1,
}


@contextmanager
def start_service() -> Iterator[tuple[Service, FakeOllama]]:
    """Start both and wait until the service is ready."""
    with (
        TemporaryDirectory() as folder,
        FakeOllama(*_behaviour()) as runtime,
        Service(
            Path(folder),
            ollama_url=runtime.url,
            models=dict.fromkeys(MODELS, _ENTRY),
            **_SETTINGS,
        ) as service,
    ):
        service.wait_until_ready()
        yield service, runtime


def _behaviour() -> list[str]:
    """Return the arguments of the runtime; unlike its controls they survive a restart."""
    return [
        f"--models={','.join(MODELS)}",
        f"--tokens={TOKENS}",
        f"--ms-per-token={TOKEN_MS}",
        f"--first-token-ms={FIRST_TOKEN_MS}",
        f"--load-seconds={LOAD_SECONDS}",
        "--unload-seconds=0.05",
        f"--unnoticed-seconds={UNNOTICED_SECONDS}",
    ]
