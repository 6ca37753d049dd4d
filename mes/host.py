"""The host: how much memory the machine has, and how much of it a process takes."""

from __future__ import annotations

import os
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


def memory_bytes(name: str) -> int | None:
    """A line of /proc/meminfo, such as MemTotal or MemAvailable; None where there is none."""
    try:
        with open("/proc/meminfo") as lines:
            kilobytes = next(line.split()[1] for line in lines if line.startswith(f"{name}:"))
    except (OSError, StopIteration):
        return None
    return int(kilobytes) * 1024


def resident_bytes(pid: int) -> int:
    """The memory of a process that is in use; 0 where it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0
