"""What the tests of promises share: clients that can hang up, crowds of them, and looks inside."""

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
"""The status of an answer that never came whole: the connection broke before."""

_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Answer:
    """What came back, and how long after the request was sent."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The code of a problem; None for any other answer."""
        is_problem = self.headers.get("content-type") == "application/problem+json"
        return self.json()["code"] if is_problem else None


class Call:
    """One request on a connection of its own, sent at once; it can be hung up at any moment."""

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
        """Take what has arrived; the answer, once all of it has."""
        with suppress(ConnectionResetError):
            if piece := self.sock.recv(65536):
                self._read.append(piece)
                return None
        seconds = time.monotonic() - self.sent_at
        self.sock.close()
        return _parsed(b"".join(self._read), seconds)

    def answer(self, seconds: float = 60.0) -> Answer:
        """Wait for the answer."""
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
    """An inference under way."""
    return Call(service, "/v1/inference", {"model_id": model_id, "prompt": prompt, **body})


def asked(service: Service, model_id: str, prompt: str = "Hello", **body: Any) -> Answer:
    """The answer to one inference; LOST where the service broke the connection."""
    began = time.monotonic()
    try:
        return infer(service, model_id, prompt, **body).answer()
    except ConnectionError:
        return Answer(LOST, {}, b"", time.monotonic() - began)


def burst(service: Service, model_id: str, number: int, **body: Any) -> list[Call]:
    """So many inferences at once; their prompts are `p0`, `p1`, ..."""
    return [infer(service, model_id, f"p{n}", **body) for n in range(number)]


def answers(calls: Sequence[Call], seconds: float = 60.0) -> list[Answer]:
    """The answers to all of them, each timed by itself. Fails where one does not come."""
    until = time.monotonic() + seconds
    come: dict[Call, Answer] = {}
    with selectors.DefaultSelector() as waiting:
        for call in calls:
            waiting.register(call.sock, selectors.EVENT_READ, call)
        while len(come) < len(calls):
            assert time.monotonic() < until, f"{len(calls) - len(come)} answers missing"
            for key, _ in waiting.select(0.5):
                if (answer := key.data.read_on()) is not None:
                    waiting.unregister(key.fileobj)
                    come[key.data] = answer
    return [come[call] for call in calls]


@contextmanager
def crowd(size: int, ask: Callable[[random.Random], Answer]) -> Iterator[list[Answer]]:
    """So many clients that ask again and again beside the block; their answers so far."""
    seen: list[Answer] = []
    failures: list[Exception] = []
    stop = threading.Event()

    def one_client(number: int) -> None:
        dice = random.Random(number)
        try:
            while not stop.is_set():
                seen.append(ask(dice))
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
    assert not any(client.is_alive() for client in clients), "a client waits for ever"


@contextmanager
def connections(service: Service, number: int, sent: bytes = b"") -> Iterator[None]:
    """So many clients that connect, send this much, and then do nothing."""
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


def held(service: Service, what: str, worker: int | None = None) -> int:
    """How many permits, tickets, ... there are; those of one worker if its pid is given."""
    owners = [each["worker"] for each in registry(service)[what].values()]
    return sum(worker is None or owner.startswith(f"{worker}-") for owner in owners)


def leaks(service: Service) -> dict[str, Any]:
    """What should not be there while nobody asks for anything."""
    document = registry(service)
    loading = [each["model"] for each in document["registry"] if each["phase"] != "ready"]
    names = ("permits", "tickets", "refusals", "unloading")
    left = {name: document[name] for name in names if document[name]}
    return {**left, **({"loading": loading} if loading else {})}


def wait_until_at_rest(service: Service, seconds: float = 5.0) -> None:
    wait_until(lambda: not leaks(service), seconds=seconds, why="all is given back")


def wait_until_held(service: Service, permits: int, tickets: int) -> None:
    def reached() -> bool:
        return (held(service, "permits"), held(service, "tickets")) == (permits, tickets)

    wait_until(reached, why=f"{permits} permits and {tickets} tickets")


def as_new(runtime: FakeOllama) -> None:
    """The runtime as it was when it started, but for what it holds in memory."""
    names = runtime.stats()["models"]
    runtime.control(
        tokens=4, ms_per_token=0, first_token_ms=0, load_seconds=0.02, unload_seconds=0, parallel=0,
        reply=None, echo=False, mode="ok", faults=[], models={name: {} for name in names},
        load_failures={name: {"times": 0} for name in names},
    )  # fmt: skip
    runtime.reset()


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent do not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))]


def cpu_seconds(pids: Sequence[int]) -> float:
    """The processor time that these processes have used."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _CLOCK_TICKS


def resident_bytes(pid: int) -> int:
    """How much memory the process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
