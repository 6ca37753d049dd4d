"""Generators make clients of /openapi.json that compile and ask a chat question."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.clients.conftest import DEVELOPMENT_KEY
from tests.clients.environments import node_modules_of, python_of
from tests.support.served import Served

HERE = Path(__file__).parent
PYTHON = HERE / "generators"
NODE = HERE / "generators-node"
COMPILER = (
    *("tsc", "--noEmit", "--strict", "--target", "es2022", "--module", "esnext"),
    *("--moduleResolution", "bundler", "--skipLibCheck", "--types", "node"),
)

pytestmark = pytest.mark.clients


@dataclass(frozen=True)
class Workshop:
    """An empty folder with the service's document, in which generators run.

    `folder` has the installed Node packages as `node_modules`.
    """

    folder: Path
    url: str

    def run(self, *command: str) -> str:
        """Run a command of one of the two environments; return its output."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, **self._variables()},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def ask(self, *command: str) -> None:
        """Run a program that prints the answer to the question for the capital of France."""
        assert "Paris" in json.loads(self.run(*command).splitlines()[-1])

    def compile_and_ask(self, program: str) -> None:
        """Compile a TypeScript program with its types, and run it."""
        shutil.copy(NODE / program, self.folder)
        self.run(*COMPILER, program)
        self.run("esbuild", program, "--bundle", "--format=esm", "--outfile=ask.mjs")
        self.ask("node", "ask.mjs")

    def _variables(self) -> dict[str, str]:
        folders = (
            Path(python_of("generators")).parent,
            Path(node_modules_of("generators-node"), ".bin"),
        )
        return {
            "PATH": os.pathsep.join([*map(str, folders), os.environ["PATH"]]),
            "MES_URL": self.url,
            "MES_API_KEY": DEVELOPMENT_KEY,
            "PYTHONPATH": f"{self.folder}/client",
        }


@pytest.fixture
def workshop(served: Served, tmp_path: Path) -> Workshop:
    url = f"http://127.0.0.1:{served.port}"
    with urlopen(f"{url}/openapi.json") as response:
        (tmp_path / "openapi.json").write_bytes(response.read())
    (tmp_path / "node_modules").symlink_to(node_modules_of("generators-node"))
    return Workshop(tmp_path, url)


def openapi_generator(kind: str, output: str, *more: str) -> Sequence[str]:
    return (
        "openapi-generator-cli",
        "generate",
        "-i",
        "openapi.json",
        "-g",
        kind,
        "-o",
        output,
        *more,
    )


def test_openapi_python_client(workshop):
    (workshop.folder / "client").mkdir()
    workshop.run(
        *("openapi-python-client", "generate", "--path", "openapi.json"),
        *("--output-path", "client/mes_client", "--meta", "none"),
    )
    workshop.ask("python", str(PYTHON / "ask_openapi_python_client.py"))


def test_openapi_generator_for_python(workshop):
    workshop.run(*openapi_generator("python", "client", "--package-name", "mes_client"))
    workshop.ask("python", str(PYTHON / "ask_openapi_generator.py"))


def test_openapi_generator_for_typescript_fetch(workshop):
    workshop.run(*openapi_generator("typescript-fetch", "typescript_fetch"))
    workshop.compile_and_ask("ask_typescript_fetch.ts")


def test_orval(workshop):
    shutil.copy(NODE / "orval.config.cjs", workshop.folder)
    workshop.run("orval", "--config", "orval.config.cjs")
    workshop.compile_and_ask("ask_orval.ts")


def test_openapi_typescript(workshop):
    workshop.run("openapi-typescript", "openapi.json", "-o", "openapi_typescript/mes.d.ts")
    workshop.compile_and_ask("ask_openapi_typescript.ts")
