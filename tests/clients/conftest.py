"""One service for all client libraries, as `make run` starts it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients import recorded_requests
from tests.clients.environments import run_program
from tests.clients.recorder import Exchange, Recorder
from tests.support.served import Served
from tests.support.service import KEY, Service

DEVELOPMENT_KEY = "mes-dev-key-123"


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("clients")) as served:
        yield served


def refused(exchanges: Iterable[Exchange]) -> list[str]:
    """Return the requests that failed. Paths that a client only tries may be missing."""
    return [
        f"{each.path} {json.dumps(each.body)[:2000]} -> {each.status} {each.answer[:2000]}"
        for each in exchanges
        if each.status >= 400 and each.method == "POST"
    ]


@pytest.fixture(scope="session")
def run_client(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Return a function that runs a program of a group against a service.

    `run_client("evaluation", "inspect_text.py", served)` returns the JSON that the program prints.
    The requests that it sends are compared with the recorded ones of the same name. With
    `all_refused`, the service has to refuse them all, and they are not recorded.
    """

    def run(
        group: str, program: str, service: Served | Service, *, all_refused: bool = False
    ) -> Any:
        url = f"http://127.0.0.1:{service.port}"
        key = KEY if isinstance(service, Service) else DEVELOPMENT_KEY
        home = tmp_path_factory.mktemp("home")
        with Recorder(url) as recorder:
            done = run_program(group, program, url=recorder.url, key=key, home=home)
        if all_refused:
            assert len(refused(recorder.exchanges)) == len(recorder.exchanges) > 0
        else:
            recorded_requests.check(Path(program).stem, recorder.exchanges)
            assert refused(recorder.exchanges) == []
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout.strip().splitlines()[-1])

    return run
