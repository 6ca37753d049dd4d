"""Child processes of a test: started, waited for, and never left behind."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).parents[2]

_running: set[subprocess.Popen[bytes]] = set()

Found = TypeVar("Found")


def start(
    command: list[str], *, env: dict[str, str], output: Path, folder: Path = ROOT
) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own; its output goes to the file `output`."""
    with output.open("ab") as stream:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=stream, stderr=stream, start_new_session=True
        )
    _running.add(process)
    return process


def stop(process: subprocess.Popen[bytes], *, patience_seconds: float) -> int:
    """Ask the program to end, then end it and all it started. Returns its exit code."""
    try:
        if process.poll() is None:
            process.terminate()
            process.wait(patience_seconds)
    except subprocess.TimeoutExpired:
        pass  # it had its chance
    return kill(process)


def kill(process: subprocess.Popen[bytes]) -> int:
    """End the program and all it started; none of them runs any more afterwards."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # nobody is left
    _running.discard(process)
    wait_until(lambda: not group(process.pid), why="killed processes end")
    return process.wait()


def children(parent: int) -> list[int]:
    """The running processes whose parent this is."""
    return [pid for pid, its_parent, _ in _table() if its_parent == parent]


def group(leader: int) -> list[int]:
    """The running processes of a group."""
    return [pid for pid, _, its_group in _table() if its_group == leader]


def _table() -> Iterator[tuple[int, int, int]]:
    """Process, parent and group of all that run; a zombie does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name in brackets may hold anything; the rest comes after it.
            state, parent, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue  # it has ended meanwhile
        if state != "Z":
            yield int(stat.parent.name), int(parent), int(its_group)


@atexit.register
def kill_all() -> None:
    """For a test run that ends without its fixtures' clean-up."""
    for process in list(_running):
        kill(process)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def wait_until(what: Callable[[], Found], *, seconds: float = 20.0, why: object = "") -> Found:
    """The first true answer of `what`. Fails once the seconds have passed."""
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, f"not within {seconds:g} s: {why or what}"
        time.sleep(0.01)
    return found
