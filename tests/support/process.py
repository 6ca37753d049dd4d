"""Child processes of a test: start them, wait for them, and end all of them."""

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
    """Start a program in its own process group. Append its output to the file `output`."""
    with output.open("ab") as stream:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=stream, stderr=stream, start_new_session=True
        )
    _running.add(process)
    return process


def stop(process: subprocess.Popen[bytes], *, patience_seconds: float) -> int:
    """Send SIGTERM, and kill the process group after `patience_seconds`. Return the exit code."""
    try:
        if process.poll() is None:
            process.terminate()
            process.wait(patience_seconds)
    except subprocess.TimeoutExpired:
        pass  # it is killed below
    return kill(process)


def kill(process: subprocess.Popen[bytes]) -> int:
    """Kill the process group and wait until all of it has ended. Return the exit code."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # the whole group has ended
    _running.discard(process)
    wait_until(lambda: not group(process.pid), why="killed processes end")
    return process.wait()


def children(parent: int) -> list[int]:
    """Return the running child processes of `parent`."""
    return [pid for pid, parent_pid, _ in _processes() if parent_pid == parent]


def group(leader: int) -> list[int]:
    """Return the running processes of the process group of `leader`."""
    return [pid for pid, _, group_id in _processes() if group_id == leader]


def _processes() -> Iterator[tuple[int, int, int]]:
    """Yield pid, parent pid and group of all processes except zombies."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name in brackets may contain any character, so the fields are read after it.
            state, parent, group_id = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue  # it has ended meanwhile
        if state != "Z":
            yield int(stat.parent.name), int(parent), int(group_id)


@atexit.register
def kill_all() -> None:
    """Kill all programs that are left when a test run ends without its fixtures' clean-up."""
    for process in list(_running):
        kill(process)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def wait_until(condition: Callable[[], Found], *, seconds: float = 20.0, why: object = "") -> Found:
    """Call `condition` until its result is true, and return the result.

    Raises:
        AssertionError: It is still false after `seconds`. The message contains `why`.
    """
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, f"not within {seconds:g} s: {why or condition}"
        time.sleep(0.01)
    return found
