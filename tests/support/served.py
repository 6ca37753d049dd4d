"""The service as a new user starts it, with its embedded runtime and a real model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from mes.config.settings import settings_table
from tests.support import process
from tests.support.process import ROOT, free_port, wait_until


class Served:
    """`mes up` in an empty folder, with an embedded runtime and the models of the checkout."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.port = free_port()
        self.output = folder / "serve.log"
        self.log = folder / "logs" / "mes.log"
        unset = {name: "" for name, _, _ in settings_table()}
        self.process = process.start(
            [sys.executable, "-m", "mes", "up"],
            env={
                **os.environ,
                **unset,
                "PYTHONPATH": str(ROOT),
                "EMBEDDED_MODELS_DIR": str(ROOT / "models"),
                "PORT": str(self.port),
                "EMBEDDED_THREADS": "1",
                **settings,
            },
            output=self.output,
            folder=folder,
        )

    def __enter__(self) -> Self:
        try:
            self.wait_until_ready()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end()

    def end(self) -> None:
        process.stop(self.process, patience_seconds=15)

    @property
    def text(self) -> str:
        return self.output.read_text()

    def wait_until_ready(self) -> None:
        wait_until(lambda: "Try:" in self.text or self.process.poll() is not None, seconds=120)
        assert "Try:" in self.text, self.text

    def run(self, curl: str) -> dict[str, Any]:
        """Run a curl command of the documentation. Return the JSON document that it prints."""
        (answer,) = self.lines(curl)
        return answer

    def lines(self, curl: str) -> list[dict[str, Any]]:
        """Run a curl command. Return the JSON documents that it prints, one a line."""
        command = ["bash", "-c", self.addressed(curl)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def addressed(self, example: str) -> str:
        """Return an example of the documentation with the port of this service."""
        return re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{self.port}", example)
