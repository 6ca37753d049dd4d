"""Freed memory is returned to the machine, which glibc by itself keeps for later use."""

from __future__ import annotations

import ctypes
import threading
import time

# Without this, a worker that had sent some hundred large answers, each from another thread, held
# 260 MB and used 45. Blocks of this size are returned when they are freed; glibc's own threshold
# grows to the size of the largest block freed so far, separately for each thread's arena.
_RETURNED_BLOCK_BYTES = 128 * 1024
_M_TRIM_THRESHOLD = -1
# Memory between blocks in use is returned by `malloc_trim`, which takes a few milliseconds.
_TRIM_INTERVAL_SECONDS = 5.0


def post_worker_init(worker: object) -> None:
    """Return freed memory from now on, where libc is glibc (a hook of gunicorn)."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim"):
        libc.mallopt(_M_TRIM_THRESHOLD, _RETURNED_BLOCK_BYTES)
        threading.Thread(target=_trim_repeatedly, args=(libc,), name="trim", daemon=True).start()


def _trim_repeatedly(libc: ctypes.CDLL) -> None:
    while True:
        time.sleep(_TRIM_INTERVAL_SECONDS)
        libc.malloc_trim(0)
