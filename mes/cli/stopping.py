"""How `make run` stops: running requests may finish, and Ctrl-C again ends them at once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Callable
from typing import Any

from mes.config.settings import Settings
from mes.errors import format_number

# A user who has pressed Ctrl-C does not like to wait for longer.
GRACEFUL_TIMEOUT_SECONDS = 5
# In addition to GRACEFUL_TIMEOUT and STOP_NOTICE: gunicorn kills workers that have not ended 2 s
# after the former.
_SPARE_SECONDS = 5.0
_QUERY_SECONDS = 1.0
_AGAIN = "Ctrl-C again ends them at once"


def stop(
    process: subprocess.Popen[bytes], seconds: float, announce: Callable[[], None] | None = None
) -> bool:
    """Ask a program to end, and return whether it has.

    If it does not end within `seconds`, or the user presses Ctrl-C again, it is killed, with all
    processes of its group.

    Args:
        announce: Called first if the program still runs.
    """
    try:
        if announce is not None and process.poll() is None:
            announce()
        process.terminate()
        process.wait(seconds)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False
    return True


def service_seconds(settings: Settings) -> float:
    """Return the longest time that the service needs to stop."""
    return settings.stop_notice_seconds + settings.graceful_timeout_seconds + _SPARE_SECONDS


def announcement(settings: Settings) -> str:
    """Return the line that says how many requests run, and how long they may do so."""
    limit = f"up to {format_number(settings.graceful_timeout_seconds)} s (GRACEFUL_TIMEOUT)"
    try:
        running, waiting = _requests(settings)
    except (OSError, ValueError, KeyError):  # it does not answer, or the keys are in a file
        return f"stopping; requests that run have {limit} to finish; {_AGAIN}"
    refused = f"; those that wait are refused: {waiting}" if waiting else ""
    if not running:
        return f"stopping; no request runs{refused}"
    run = "1 request runs and has" if running == 1 else f"{running} requests run and have"
    return f"stopping; {run} {limit} to finish{refused}; {_AGAIN}"


def _requests(settings: Settings) -> tuple[int, int]:
    """Return how many requests hold a permit, and how many wait for one."""
    headers = {"Authorization": f"Bearer {settings.api_key}"}
    request = urllib.request.Request(f"{settings.local_url}/v1/status", headers=headers)
    # Without the proxy that the environment may name.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=_QUERY_SECONDS) as answer:
        models: list[dict[str, Any]] = json.load(answer)["models"]
    return sum(each["in_flight"] for each in models), sum(each["queued"] for each in models)
