"""One service for all client libraries, as `make run` starts it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.served import Served


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("clients")) as served:
        yield served
