"""Fixtures: the embedded runtime as a program, with a real engine and a real model."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ollama
import pytest

from mes.embedded.client_connection import ClientConnection
from mes.server.client_socket import ClientSocket

ROOT = Path(__file__).parents[2]
MODEL = "smollm2:135m"
FILE = "smollm2--135m.gguf"
# One thread per engine: with more, they spin while they wait for each other on a busy machine.
ENVIRONMENT = {**os.environ, "EMBEDDED_THREADS": "1", "OLLAMA_CONTEXT_LENGTH": "2048"}


class Program:
    """A process of `python -m mes.embedded serve` on a free port."""

    def __init__(self, models: Path, *arguments: str, **environment: str) -> None:
        self.models = models
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mes.embedded", "serve", "--port", "0", *arguments],
            env={**ENVIRONMENT, "EMBEDDED_MODELS_DIR": str(models), **environment},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr
        self.url = self.process.stderr.readline().split()[-1]
        self.client = ollama.Client(self.url)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def children(self) -> list[int]:
        """Process ids of the engines."""
        pid = self.process.pid
        lists = Path(f"/proc/{pid}/task").glob("*/children")
        return [int(child) for path in lists for child in path.read_text().split()]

    def loaded(self) -> list[str]:
        return [str(model.model) for model in self.client.ps().models]

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(10)


def until(condition: Callable[[], Any], seconds: float = 10.0) -> float:
    """Wait until `condition` returns a true value, and return the seconds that it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "the condition was not met in time"
        time.sleep(0.01)
    return time.monotonic() - start


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.fixture
def connection() -> Iterator[tuple[ClientConnection, socket.socket]]:
    """Both ends of a client's connection: the server's, wrapped, and the client's socket."""
    server_end, client_end = socket.socketpair()
    with ClientSocket.adopt(server_end) as adopted, client_end:
        yield ClientConnection(adopted), client_end


@pytest.fixture(scope="session")
def pulled() -> Path:
    """The folder with the real model, pulled once per machine."""
    pytest.importorskip("xllamacpp", reason="the extra `embedded` is not installed")
    folder = Path(os.environ.get("MES_TEST_MODELS_DIR") or ROOT / "models")
    command = [sys.executable, "-m", "mes.embedded", "pull", "--models", str(folder), MODEL]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="session")
def start(
    pulled: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Program]]:
    """Start a program with a models folder of its own that has the pulled models in it."""
    programs: list[Program] = []

    def started(*arguments: str, **environment: str) -> Program:
        folder = tmp_path_factory.mktemp("models")
        for path in pulled.glob("*.gguf"):
            (folder / path.name).symlink_to(path.resolve())
        programs.append(Program(folder, *arguments, **environment))
        return programs[-1]

    yield started
    for program in programs:
        if program.process.poll() is None:
            program.end(signal.SIGKILL)


@pytest.fixture(scope="session")
def program(start: Callable[..., Program]) -> Program:
    """A program that the tests share."""
    return start()


@pytest.fixture
def client(program: Program) -> ollama.Client:
    return program.client
