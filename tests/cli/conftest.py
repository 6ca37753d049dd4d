"""Fixtures that run the `mes` command, in this process or another, against a real service."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mes.cli.main import mes as command
from mes.config.settings import settings_table
from tests.integration.helpers import restore_defaults
from tests.support.process import ROOT
from tests.support.service import KEY, FakeOllama, Service

HERE, ABSENT, EMBEDDER = "smollm2:135m", "hf.co/org/Tiny:Q4", "all-minilm:33m"
NAME = "SmolLM2 \u5c0f"
HERE_FIELDS = {"max_concurrent": 2, "context_window": 4096, "size_gb": 0.1, "display_name": NAME}
MODELS = {HERE: HERE_FIELDS, ABSENT: {}, EMBEDDER: {}}

Mes = Callable[..., Result]


@pytest.fixture(scope="module")
def runtime() -> Iterator[FakeOllama]:
    with FakeOllama(f"--models={HERE}") as fake:
        fake.control(abilities={HERE: ["thinking"]})
        yield fake


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, runtime: FakeOllama) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    # One worker, because each notices changes of the runtime at its own time.
    with Service(
        folder,
        ollama_url=runtime.url,
        models=MODELS,
        WEB_CONCURRENCY=1,
        MAX_BODY_BYTES=1 << 20,
        OLLAMA_NUM_PARALLEL=4,
        OLLAMA_MAX_LOADED_MODELS=3,
    ) as service:
        service.wait_until_ready()
        yield service


@pytest.fixture(autouse=True)
def reset_runtime(runtime: FakeOllama) -> None:
    runtime.control(pulled=[HERE], pull_seconds=0)
    restore_defaults(runtime)


@pytest.fixture
def environ(service: Service, runtime: FakeOllama) -> dict[str, str]:
    """Return an environment without problems; the developer's own environment is ignored."""
    return {
        "HOST": "127.0.0.1",
        "PORT": str(service.port),
        "MES_API_KEY": KEY,
        "OLLAMA_HOST": runtime.url,
        "MODELS_CONFIG_PATH": str(service.models_path),
        "STATE_DIR": str(service.state_dir),
        "OLLAMA_NUM_PARALLEL": "4",
        "OLLAMA_MAX_LOADED_MODELS": "3",
    }


@pytest.fixture
def mes(environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mes:
    """Return a function that runs the command in this process, in an empty folder.

    Use it as `mes("load", "a:1b", MES_URL=...)`; keywords are environment variables.
    """
    monkeypatch.chdir(tmp_path)
    unset = dict.fromkeys(["MES_URL", *(name for name, _, _ in settings_table())])

    def run(*arguments: str, input: str | None = None, **more: str | None) -> Result:
        env: Mapping[str, str | None] = {**unset, **environ, **more}
        return CliRunner().invoke(command, arguments, input=input, env=env, prog_name="mes")

    return run


@pytest.fixture
def program(environ: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs `python -m mes` as another process, with its output piped."""

    def run(*arguments: str, input: str = "") -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "mes", *arguments]
        env = {**os.environ, "MES_URL": "", **environ}
        return subprocess.run(
            words, input=input, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60
        )

    return run
