"""One llama.cpp process with one model: start it, talk to it, stop it."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mes.embedded import engine_requirements
from mes.embedded.api_errors import EngineDied, EngineLoadFailed, EngineRefused
from mes.embedded.gguf import chat_template
from mes.embedded.model_store import StoredModel
from mes.embedded.options import LoadParameters
from mes.embedded.slots import ClientConnection, Slots, WatchfulSocket

Events = Generator[dict[str, Any], None, None]
PACKAGE_ROOT = Path(__file__).parents[2]
LOG_LINES_KEPT = 40
LONGEST_WAIT = threading.TIMEOUT_MAX
# Without this its threads spin at each barrier and starve whoever else needs the cores. Libgomp
# reads it as it loads, which is one reason for a process of its own.
ENVIRONMENT = {"GOMP_SPINCOUNT": "3000", "GGML_NO_BACKTRACE": "1"}


class Engine:
    """Spawned as soon as it is made; of no use before `load` has returned"""

    def __init__(self, model: StoredModel, launch: LoadParameters) -> None:
        self.launch = launch
        self.slots = Slots(launch.slots)
        self.schemas_that_compile: set[str] = set()
        self._model = model
        self._process = _spawn()
        self._log: deque[str] = deque(maxlen=LOG_LINES_KEPT)
        threading.Thread(target=self._keep_log, daemon=True).start()
        self._key = secrets.token_hex(16)
        self._address: tuple[str, int] = ("", 0)

    def load(self, timeout_seconds: float) -> None:
        """Returns when it is ready to answer; LoadFailed with the reason"""
        watchdog = threading.Timer(min(timeout_seconds, LONGEST_WAIT), self._process.kill)
        watchdog.start()
        answer = self._exchange(self._order())
        watchdog.cancel()
        if "address" not in answer:
            raise EngineLoadFailed(
                f"llama-server process has terminated: {self._how_it_ended(answer)}"
            )
        address = urlsplit(answer["address"])
        self._address = (str(address.hostname), int(address.port or 0))

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def resident_bytes(self) -> int:
        """0 where the system does not tell"""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> None:
        """Returns when the process is gone; it has nothing to save"""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            pipe.close()

    def complaints(self, about: str) -> list[str]:
        """What the engine wrote lately about that"""
        return [line for line in list(self._log) if about in line]

    def ask(self, path: str, body: dict[str, Any], caller: ClientConnection) -> Any:
        """One request, one JSON answer; EngineRefused, EngineDied, CallerLeft"""
        with self._response(path, body, caller) as response:
            return json.loads(response.read())

    def stream(self, path: str, body: dict[str, Any], caller: ClientConnection) -> Events:
        """The events of a streamed answer; closing the iterator stops the engine's work on it"""
        with self._response(path, {**body, "stream": True}, caller) as response:
            for line in response:
                if line.startswith(b"data: "):
                    yield _checked(json.loads(line[6:]))

    @contextmanager
    def _response(
        self, path: str, body: dict[str, Any], caller: ClientConnection
    ) -> Iterator[http.client.HTTPResponse]:
        with _translated_failures(self), WatchfulSocket() as connection:
            connection.caller = caller
            connection.connect(self._address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(self._request(path, json.dumps(body).encode()))
            with http.client.HTTPResponse(connection, method="POST") as response:
                response.begin()
                if response.status != 200:
                    raise EngineRefused(response.status, response.read().decode("utf-8", "replace"))
                yield response

    def _request(self, path: str, body: bytes) -> bytes:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: engine\r\nAuthorization: Bearer {self._key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def _order(self) -> dict[str, Any]:
        return {
            **asdict(self.launch),
            "path": str(self._model.path),
            "key": self._key,
            "embedding": self._model.header.is_embedding,
            "chat_template": chat_template(self._model.header),
        }

    def _exchange(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline() or b"{}"))

    def _how_it_ended(self, answer: dict[str, Any]) -> str:
        self._process.wait()
        words = [self.last_words(), *([answer["error"]] if "error" in answer else [])]
        missing = [f"\n{sentence}" for sentence in engine_requirements.missing_requirements()]
        return ": ".join(words) + "".join(missing or self._log_of_errors())

    def _log_of_errors(self) -> list[str]:
        return [f"\n{line}" for line in self.complaints("error")]

    def _keep_log(self) -> None:
        assert self._process.stderr
        for line in self._process.stderr:
            self._log.append(line.decode("utf-8", "replace").rstrip())

    def last_words(self) -> str:
        """How a process that went away ended"""
        try:
            status = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return ""
        return f"signal: {_signal(status)}" if status < 0 else f"exit status {status}"


@contextmanager
def _translated_failures(engine: Engine) -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as exc:
        raise EngineDied(engine.last_words()) from exc


def _checked(event: dict[str, Any]) -> dict[str, Any]:
    """What goes wrong in the middle of an answer comes as an event of it"""
    if error := event.get("error"):
        raise EngineRefused(int(error["code"]), json.dumps({"error": error}))
    return event


def _spawn() -> subprocess.Popen[bytes]:
    path = os.pathsep.join(filter(None, (str(PACKAGE_ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, "-m", "mes.embedded.engine_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": path},
    )


def _signal(status: int) -> str:
    names = {signal.SIGKILL: "killed", signal.SIGILL: "illegal instruction"}
    return names.get(signal.Signals(-status), signal.Signals(-status).name)
