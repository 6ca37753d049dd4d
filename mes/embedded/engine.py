"""The engine: llama.cpp's server in a process of its own, and its requirements."""

from __future__ import annotations

import ctypes
import http.client
import importlib.metadata
import importlib.util
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mes.embedded.api_errors import EngineDied, EngineLoadFailed, EngineRefused, EngineStopped
from mes.embedded.client_connection import ClientConnection, WatchfulSocket
from mes.embedded.model_store import StoredModel
from mes.embedded.options import LoadParameters
from mes.embedded.slots import Slots

Events = Generator[dict[str, Any], None, None]

# The engine is compiled for these without a check at run time: it dies of SIGILL without them.
INSTRUCTIONS = ("avx2", "fma", "f16c", "bmi2")
PACKAGE_ROOT = Path(__file__).parents[2]
LOG_LINES_KEPT = 40
LONGEST_WAIT = threading.TIMEOUT_MAX
# Without this setting, libgomp's threads spin at each barrier and starve other processes of the
# cores. Libgomp reads it while it loads, which is one reason for a process per engine.
ENVIRONMENT = {"GOMP_SPINCOUNT": "3000", "GGML_NO_BACKTRACE": "1"}


@cache
def engine_version() -> str:
    try:
        return importlib.metadata.version("xllamacpp")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def missing_requirements() -> list[str]:
    """Return a message for each missing requirement; with one missing, no model can be loaded."""
    found = (_missing_engine(), _missing_library(), _missing_instructions())
    return [message for message in found if message]


def _missing_engine() -> str:
    if importlib.util.find_spec("xllamacpp"):
        return ""
    return (
        "the package xllamacpp is not installed: run pip install -e '.[embedded]' in MES's folder"
    )


def _missing_library() -> str:
    try:
        ctypes.CDLL("libgomp.so.1")
    except OSError:
        return "the system library libgomp.so.1 is missing: run apt-get install libgomp1"
    return ""


def _missing_instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    try:
        text = cpuinfo.read_text()
    except OSError:
        return ""
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    missing = [name for name in INSTRUCTIONS if flags and name not in flags.split()]
    if not missing:
        return ""
    return f"the processor lacks {', '.join(missing)}, which the engine xllamacpp requires"


@dataclass(frozen=True)
class Vocabulary:
    """The bytes of each token by its id, and the id of a token that is a letter."""

    pieces: Mapping[int, bytes]
    letter: int


class Engine:
    """A llama.cpp process, spawned by the constructor and ready for requests after `load`."""

    def __init__(self, model: StoredModel, launch: LoadParameters) -> None:
        self.launch = launch
        self.slots = Slots(launch.slots)
        self.compilation = threading.Lock()
        self.verified_grammars: set[str] = set()
        self.vocabulary: Vocabulary | None = None  # until it is read
        # The time of the last token or progress of any stream.
        self.last_event = 0.0
        self.was_stopped = False  # by the program, not by a failure
        self._is_stalled = False
        self._model = model
        self._process = _spawn()
        self._log: deque[str] = deque(maxlen=LOG_LINES_KEPT)
        threading.Thread(target=self._collect_log, daemon=True).start()
        self._key = secrets.token_hex(16)
        self._address: tuple[str, int] = ("", 0)

    def load(self, timeout_seconds: float) -> None:
        """Load the model and return when the engine is ready to answer.

        Raise `EngineLoadFailed` with the reason, also after `timeout_seconds`.
        """
        began = time.monotonic()
        watchdog = threading.Timer(min(timeout_seconds, LONGEST_WAIT), self._process.kill)
        watchdog.start()
        answer = self._exchange(self._load_order())
        watchdog.cancel()
        if "address" not in answer:
            reason = self._load_failure(answer)
            if time.monotonic() - began >= timeout_seconds:
                reason = f"it took longer than OLLAMA_LOAD_TIMEOUT, {timeout_seconds:g} s"
            raise EngineLoadFailed(f"llama-server process has terminated: {reason}")
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
        """Resident memory of the process; 0 if the system does not report it."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> None:
        """Kill the process, which has nothing to save, and return when it is gone."""
        self.was_stopped = True
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            pipe.close()

    def end_stalled(self) -> None:
        """End the process because of one request; the others raise `EngineStopped`."""
        self.was_stopped = self._is_stalled = True
        self._process.kill()
        self._process.wait()

    def death(self) -> EngineDied:
        """Return the error of a request whose connection the process has closed."""
        reason = self.exit_reason()
        return EngineStopped(reason) if self._is_stalled else EngineDied(reason)

    def log_lines(self, text: str) -> list[str]:
        """Return the recent lines of the engine's log that contain `text`."""
        return [line for line in list(self._log) if text in line]

    def request(self, path: str, body: dict[str, Any], client: ClientConnection) -> Any:
        """Send one request and return the JSON of its answer.

        A prompt in it is evaluated from its first token, unless the model is loaded with a cache.

        Raises:
            EngineRefused: the engine answered with an error.
            EngineDied: the engine process ended.
            ClientLeft: the client, for whom the request is made, has left.
        """
        with self._response(path, body, client) as response:
            return json.loads(response.read())

    def stream(self, path: str, body: dict[str, Any], client: ClientConnection) -> Events:
        """Yield the events of a streamed answer; closing the iterator stops the engine's work.

        Raise the errors of `request`.
        """
        with self._response(path, {**body, "stream": True}, client) as response:
            for line in response:
                self.last_event = time.monotonic()
                if line.startswith(b"data: "):
                    yield _checked(json.loads(line[6:]))

    def exit_reason(self) -> str:
        """Return the signal or exit status of the process; "" while it still runs."""
        try:
            status = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return ""
        return f"signal: {_signal_name(status)}" if status < 0 else f"exit status {status}"

    @contextmanager
    def _response(
        self, path: str, body: dict[str, Any], client: ClientConnection
    ) -> Iterator[http.client.HTTPResponse]:
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        body = {"cache_prompt": self.launch.prompt_cache, **body}
        with _connection_errors_as_engine_died(self), WatchfulSocket() as sock:
            sock.client = client
            sock.connect(self._address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = http.client.HTTPConnection(*self._address)
            connection.sock = sock
            connection.request("POST", path, json.dumps(body).encode(), headers)
            with connection.getresponse() as response:
                if response.status != 200:
                    raise EngineRefused(response.status, response.read().decode("utf-8", "replace"))
                yield response

    def _load_order(self) -> dict[str, Any]:
        return {
            **asdict(self.launch),
            "path": str(self._model.path),
            "key": self._key,
            "embedding": self._model.header.is_embedding,
            "chat_template": self._model.header.chat_template,
        }

    def _exchange(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline() or b"{}"))

    def _load_failure(self, answer: dict[str, Any]) -> str:
        self._process.wait()
        reasons = [self.exit_reason(), *([answer["error"]] if "error" in answer else [])]
        lines = missing_requirements() or self.log_lines("error")
        return ": ".join(reasons) + "".join(f"\n{line}" for line in lines)

    def _collect_log(self) -> None:
        assert self._process.stderr
        for line in self._process.stderr:
            self._log.append(line.decode("utf-8", "replace").rstrip())


@contextmanager
def _connection_errors_as_engine_died(engine: Engine) -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as exc:
        raise engine.death() from exc


def _checked(event: dict[str, Any]) -> dict[str, Any]:
    # After the headers, the engine reports an error as an event of the stream.
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


def _signal_name(status: int) -> str:
    names = {signal.SIGKILL: "killed", signal.SIGILL: "illegal instruction"}
    return names.get(signal.Signals(-status), signal.Signals(-status).name)
