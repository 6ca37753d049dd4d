"""Helpers of the integration tests: clients that can hang up, load, and the state of a service."""

from __future__ import annotations

import json
import os
import random
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mes.scheduling.shared_file import Handle, SharedFile
from tests.support.process import wait_until
from tests.support.service import KEY, FakeOllama, Service

LOST = 0
"""The status of an answer that is not complete because the connection broke."""


@dataclass(frozen=True)
class Answer:
    """A response, and the seconds from sending the request to its end."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """Return the code of a problem document, or None for any other answer."""
        is_problem = self.headers.get("content-type") == "application/problem+json"
        return self.json()["code"] if is_problem else None


class Call:
    """One request on its own connection, sent when it is created; it can be hung up at any time."""

    def __init__(
        self, service: Service, path: str, body: Any = None, *, version: str = "1.1"
    ) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{'GET' if body is None else 'POST'} {path} HTTP/{version}\r\nHost: mes\r\n"
            f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
        )
        self.sent_at = time.monotonic()
        self.sock = socket.create_connection(("127.0.0.1", service.port), timeout=30)
        self.sock.sendall(head.encode() + data)
        self._read: list[bytes] = []

    def read_on(self) -> Answer | None:
        """Read the bytes that have arrived. Return the answer if it is complete, else None."""
        with suppress(ConnectionResetError):
            if piece := self.sock.recv(65536):
                self._read.append(piece)
                return None
        seconds = time.monotonic() - self.sent_at
        self.sock.close()
        return _parsed(b"".join(self._read), seconds)

    def answer(self, seconds: float = 60.0) -> Answer:
        """Wait for the answer and return it. Raise AssertionError after `seconds`."""
        return answers([self], seconds)[0]

    def hang_up(self) -> None:
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()


def _parsed(read: bytes, seconds: float) -> Answer:
    head, _, body = read.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    if not body or len(body) < int(headers.get("content-length", 0)):
        return Answer(LOST, {}, read, seconds)
    return Answer(int(first.split()[1]), headers, body, seconds)


def infer(service: Service, model_id: str, prompt: str = "Hello", **body: Any) -> Call:
    """Send an inference without waiting for its answer."""
    return Call(service, "/v1/inference", {"model_id": model_id, "prompt": prompt, **body})


def asked(service: Service, model_id: str, prompt: str = "Hello", **body: Any) -> Answer:
    """Return the answer to one inference, LOST if the service broke the connection."""
    began = time.monotonic()
    try:
        return infer(service, model_id, prompt, **body).answer()
    except ConnectionError:
        return Answer(LOST, {}, b"", time.monotonic() - began)


def burst(service: Service, model_id: str, number: int, **body: Any) -> list[Call]:
    """Send `number` inferences at once, with the prompts `p0`, `p1`, ..."""
    return [infer(service, model_id, f"p{n}", **body) for n in range(number)]


def answers(calls: Sequence[Call], seconds: float = 60.0) -> list[Answer]:
    """Return the answers to all calls. Raise AssertionError if one is missing after `seconds`."""
    until = time.monotonic() + seconds
    received: dict[Call, Answer] = {}
    with selectors.DefaultSelector() as waiting:
        for call in calls:
            waiting.register(call.sock, selectors.EVENT_READ, call)
        while len(received) < len(calls):
            assert time.monotonic() < until, f"{len(calls) - len(received)} answers missing"
            for key, _ in waiting.select(0.5):
                if (answer := key.data.read_on()) is not None:
                    waiting.unregister(key.fileobj)
                    received[key.data] = answer
    return [received[call] for call in calls]


@contextmanager
def crowd(size: int, ask: Callable[[random.Random], Answer]) -> Iterator[list[Answer]]:
    """Run `size` clients that repeat `ask` during the block. Yield their answers so far."""
    seen: list[Answer] = []
    failures: list[Exception] = []
    stop = threading.Event()

    def one_client(number: int) -> None:
        rng = random.Random(number)
        try:
            while not stop.is_set():
                seen.append(ask(rng))
        except Exception as exc:
            failures.append(exc)

    clients = [threading.Thread(target=one_client, args=(n,)) for n in range(size)]
    for client in clients:
        client.start()
    try:
        yield seen
    finally:
        stop.set()
        for client in clients:
            client.join(60)
    assert not failures
    assert not any(client.is_alive() for client in clients), "a client still waits"


@contextmanager
def connections(service: Service, number: int, sent: bytes = b"") -> Iterator[None]:
    """Connect `number` clients that send these bytes and then do nothing."""
    with ExitStack() as stack:
        for _ in range(number):
            sock = socket.create_connection(("127.0.0.1", service.port))
            stack.enter_context(sock).sendall(sent)
        yield


def living(service: Service) -> set[int]:
    """Return the running workers that have created their wakeup pipe, so are ready to serve."""
    pipes = (service.state_dir / "workers").glob("*.wakeup")
    return {int(path.stem.partition("-")[0]) for path in pipes} & set(service.worker_pids())


def registry(service: Service) -> dict[str, Any]:
    """Return the state that the workers share, or that a service which has ended has left."""
    path = service.state_dir / "registry.json"
    fds = Path(f"/proc/{service.process.pid}/fd").glob("*")
    opened = next((fd for fd in fds if os.readlink(fd).startswith(str(path))), path)
    file = SharedFile(path, os.open(opened, os.O_RDWR))
    with closing(file), closing(Handle(file)) as handle:
        state = json.loads(handle.read().content)
    empty = {"permits": {}, "tickets": {}, "refusals": {}, "unloading": {}, "registry": []}
    return empty if state is None else dict(state)


def held(service: Service, kind: str, worker: int | None = None) -> int:
    """Return the number of permits, tickets, ...: of one worker if its pid is given."""
    owners = [each["worker"] for each in registry(service)[kind].values()]
    return sum(worker is None or owner.startswith(f"{worker}-") for owner in owners)


def leaks(service: Service) -> dict[str, Any]:
    """Return the entries of the shared state that may not be there without any request."""
    document = registry(service)
    loading = [each["model"] for each in document["registry"] if each["phase"] != "ready"]
    names = ("permits", "tickets", "refusals", "unloading")
    left = {name: document[name] for name in names if document[name]}
    return {**left, **({"loading": loading} if loading else {})}


def wait_until_at_rest(service: Service, seconds: float = 15.0) -> None:
    wait_until(lambda: not leaks(service), seconds=seconds, why="all is given back")


def wait_until_held(service: Service, permits: int, tickets: int) -> None:
    def reached() -> bool:
        return (held(service, "permits"), held(service, "tickets")) == (permits, tickets)

    wait_until(reached, why=f"{permits} permits and {tickets} tickets")


def restore_defaults(runtime: FakeOllama) -> None:
    """Reset the behaviour and counters of the runtime; the loaded models stay in memory."""
    names = runtime.stats()["models"]
    runtime.control(
        tokens=4, ms_per_token=0, first_token_ms=0, load_seconds=0.02, unload_seconds=0, parallel=0,
        places=0, reply=None, thinking="", calls=[], calls_unasked=False, turns=[], echo=False,
        mode="ok", faults=[],
        models={name: {} for name in names},
        load_failures={name: {"times": 0} for name in names},
    )  # fmt: skip
    runtime.reset()


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that `percent` of the values do not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))]


def wakeups(pids: Sequence[int]) -> int:
    """Return how often the running threads of these processes have slept and woken up."""
    tasks = (task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir())
    return sum(_voluntary_switches(task / "status") for task in tasks)


def _voluntary_switches(status: Path) -> int:
    try:
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    except OSError:
        return 0  # the thread has ended meanwhile
    return int(fields["voluntary_ctxt_switches"])


def resident_bytes(pid: int) -> int:
    """Return the resident memory of the process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
