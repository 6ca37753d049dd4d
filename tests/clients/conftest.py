"""One service for all clients, as `make run` starts it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import process
from tests.support.served import Served


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("clients"))
    try:
        served.wait_until_ready()
        yield served
    finally:
        process.stop(served.process, patience_seconds=15)
