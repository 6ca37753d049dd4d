"""The service and the fake runtime as real processes that a test starts, inspects and kills."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import requests

from mes.config.settings import settings_table
from tests.support import process
from tests.support.process import free_port, wait_until

KEY = "a-key-for-tests"


def catalog(path: Path, defaults: Mapping[str, Any] | None = None, **models: Any) -> Path:
    """Write a catalog with an entry for each model: `catalog(path, **{"a:1b": {}})`."""
    path.write_text(json.dumps({"models": models, "defaults": dict(defaults or {})}))
    return path


def _bare_environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, "PYTHONUNBUFFERED": "1"}


class FakeOllama:
    """The fake runtime as a process; see `python -m tests.support.fake_ollama --help`."""

    def __init__(self, *arguments: str, port: int = 0) -> None:
        self._arguments = arguments
        self._folder = tempfile.TemporaryDirectory(prefix="fake-ollama-")
        self._output = Path(self._folder.name) / "output"
        self._session = _session()
        self.port = port or free_port()
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, or start again on the same port, with no model loaded and all counters at zero."""
        self._output.write_bytes(b"")
        command = [sys.executable, "-m", "tests.support.fake_ollama", "--with-parent"]
        command += [f"--port={self.port}", *self._arguments]
        self._process = process.start(command, env=_bare_environment(), output=self._output)
        ports = wait_until(self._ports, why="the fake runtime starts")
        self._control_url = f"http://127.0.0.1:{ports[1]}"

    def _ports(self) -> list[str]:
        text = self._output.read_text()
        assert self._process.poll() is None, f"the fake runtime did not start: {text}"
        return text.split() if text.endswith("\n") else []

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def stats(self) -> dict[str, Any]:
        """Return the counters, also while the runtime refuses connections."""
        answer: dict[str, Any] = self._session.get(f"{self._control_url}/_stats").json()
        return answer

    def model(self, name: str) -> dict[str, Any]:
        """Return the counters of one model."""
        counters: dict[str, Any] = self.stats()["models"][name]
        return counters

    def control(self, **behaviour: Any) -> None:
        """Change its behaviour from now on: tokens, ms_per_token, reply, mode, faults, ..."""
        answer = self._session.post(f"{self._control_url}/_control", json=behaviour)
        assert answer.status_code == 200, answer.text

    def reset(self) -> None:
        """Set all counters to zero."""
        self._session.post(f"{self._control_url}/_reset").raise_for_status()

    def kill(self) -> None:
        process.kill(self._process)

    def restart(self) -> None:
        """Kill the runtime and start it again, with no model loaded."""
        self.kill()
        self.start()

    def close(self) -> None:
        self.kill()
        self._session.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Service:
    """The service under gunicorn, on a free port, with a defined environment.

    Args:
        settings: Environment variables. All others have their defaults, also when the developer's
            environment or `.env` sets them.
        checkout: The folder that the service runs from.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ollama_url: str,
        models: Mapping[str, Any] | None = None,
        wait_healthy: bool = True,
        checkout: Path = process.ROOT,
        **settings: object,
    ) -> None:
        # In memory, as STATE_DIR is by default.
        shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.state_dir = Path(tempfile.mkdtemp(prefix="mes-", dir=shm))
        self.models_path = catalog(folder / "models.json", **(models or {"mistral:7b": {}}))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.output = folder / f"service-{self.port}.log"
        self.session = _session()
        self._checkout = checkout
        self._settings = {
            "HOST": "127.0.0.1",
            "PORT": self.port,
            "MES_API_KEY": KEY,
            # The host in requests that tests write byte by byte.
            "ALLOWED_HOSTS": "mes",
            "OLLAMA_HOST": ollama_url,
            "MODELS_CONFIG_PATH": self.models_path,
            "STATE_DIR": self.state_dir,
            "WEB_CONCURRENCY": 4,
            **settings,
        }
        self.start()
        if wait_healthy:
            self.wait_until_healthy()

    def start(self) -> None:
        """Start, or start again with the same settings."""
        # The script and not the module, because the module cannot start itself again at SIGUSR2.
        gunicorn = str(Path(sys.executable).with_name("gunicorn"))
        command = [gunicorn, "-c", "gunicorn.conf.py", "wsgi:app"]
        self.process = process.start(
            command, env=self._environment(), output=self.output, folder=self._checkout
        )

    def _environment(self) -> dict[str, str]:
        # An empty value is "not set", and the environment wins over a .env in the working folder.
        unset = {name: "" for name, _, _ in settings_table()}
        settings = {name: str(value) for name, value in self._settings.items()}
        return {**_bare_environment(), **unset, **settings}

    def wait_until_healthy(self, seconds: float = 60.0) -> None:
        wait_until(lambda: self._answers("/health"), seconds=seconds, why=self.output)

    def wait_until_ready(self, seconds: float = 60.0) -> None:
        wait_until(lambda: self._answers("/ready"), seconds=seconds, why=self.output)

    def _answers(self, path: str) -> bool:
        assert self.process.poll() is None, f"the service ended: {self.text()}"
        try:
            return self.session.get(self.url + path, timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def get(self, path: str, **more: Any) -> requests.Response:
        """Send a GET request with the key, on a new connection."""
        with _session() as session:
            return session.get(self.url + path, **_with_key(more))

    def post(self, path: str, body: Any = None, **more: Any) -> requests.Response:
        """Send a POST request with the key and a JSON body, on a new connection."""
        with _session() as session:
            return session.post(self.url + path, json=body, **_with_key(more))

    def infer(self, model_id: str, prompt: str = "Hello", **body: Any) -> requests.Response:
        """Send one inference; `http` contains arguments of the HTTP client."""
        http = body.pop("http", {})
        return self.post("/v1/inference", {"model_id": model_id, "prompt": prompt, **body}, **http)

    def worker_pids(self) -> list[int]:
        """Return the child processes of gunicorn's master."""
        return sorted(process.children(self.process.pid))

    def kill_worker(self, pid: int) -> None:
        """Send SIGKILL to a worker, as the kernel does when memory runs out."""
        assert pid in self.worker_pids(), f"{pid} is no worker"
        os.kill(pid, signal.SIGKILL)

    def text(self) -> str:
        """Return all output of the service."""
        return self.output.read_text(errors="replace")

    def log_lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return the JSON log lines so far, or only those of `event`."""
        lines = [json.loads(line) for line in self._lines() if line.startswith("{")]
        return [line for line in lines if event in (None, line.get("event"))]

    def other_lines(self) -> list[str]:
        """Return the lines of output that are no JSON; there should be none."""
        return [line for line in self._lines() if not line.startswith("{")]

    def _lines(self) -> list[str]:
        """Return the complete lines so far: a worker may be in the middle of the last one."""
        return self.text().split("\n")[:-1]

    def terminate(self) -> None:
        """Send SIGTERM and return at once."""
        self.process.terminate()

    def wait(self, seconds: float) -> int:
        """Wait until the service has stopped by itself. Return its exit code."""
        return self.process.wait(seconds)

    def stop(self, patience_seconds: float = 30.0) -> int:
        """Stop the service, and kill it if it still runs after a while. Return its exit code."""
        return process.stop(self.process, patience_seconds=patience_seconds)

    def close(self) -> None:
        """Kill the service at once; a test of a clean stop calls `stop` before."""
        self.session.close()
        process.kill(self.process)
        shutil.rmtree(self.state_dir, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    return session


def _with_key(more: dict[str, Any]) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {KEY}", **more.pop("headers", {})}
    return {"timeout": 60, **more, "headers": headers}
