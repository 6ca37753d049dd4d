"""The undocumented names of gunicorn that this room overrides or reads, checked at the start.

An upgrade of gunicorn that renames one of them would not fail by itself: an override that is never
called loses its feature in silence. The service therefore refuses to start and names what differs.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gunicorn

_GTHREAD = "gunicorn.workers.gthread"

# The parameters that our overrides and calls rely on, `self` or `cls` left out.
SIGNATURES: dict[str, tuple[str, ...]] = {
    f"{_GTHREAD}:ThreadWorker.check_config": ("cfg", "log"),
    f"{_GTHREAD}:ThreadWorker.get_thread_pool": (),
    f"{_GTHREAD}:ThreadWorker.set_accept_enabled": ("enabled",),
    f"{_GTHREAD}:ThreadWorker.accept": ("listener",),
    f"{_GTHREAD}:ThreadWorker.enqueue_req": ("conn",),
    f"{_GTHREAD}:ThreadWorker.handle": ("conn",),
    f"{_GTHREAD}:ThreadWorker.handle_error": ("req", "client", "addr", "exc"),
    f"{_GTHREAD}:ThreadWorker.handle_exit": ("sig", "frame"),
    f"{_GTHREAD}:ThreadWorker.finish_request": ("conn", "fs"),
    f"{_GTHREAD}:ThreadWorker.murder_keepalived": ("force",),
    f"{_GTHREAD}:ThreadWorker.murder_pending": (),
    f"{_GTHREAD}:ThreadWorker.init_signals": (),
    f"{_GTHREAD}:ThreadWorker.notify": (),
    f"{_GTHREAD}:ThreadWorker.run": (),
    f"{_GTHREAD}:ThreadWorker._cap_keepalive": ("deadline",),
    f"{_GTHREAD}:ThreadWorker._keepalive_after": ("conn", "keepalive"),
    f"{_GTHREAD}:PollableMethodQueue.defer": ("callback", "args"),
    f"{_GTHREAD}:TConn.init": (),
    f"{_GTHREAD}:TConn.close": ("graceful",),
    "gunicorn.http.parser:Parser.finish_body": ("deadline", "max_bytes"),
    "gunicorn.http.unreader:SocketUnreader.__init__": ("sock", "max_chunk"),
    "gunicorn.http.unreader:SocketUnreader.chunk": ("size_hint",),
    "gunicorn.arbiter:Arbiter.handle_hup": (),
    "gunicorn.arbiter:Arbiter.handle_term": (),
}

# Attributes that we read, by the method of gunicorn that sets them, and methods of ours that
# gunicorn has to call, by the method that calls them.
USES: dict[str, tuple[str, ...]] = {
    f"{_GTHREAD}:ThreadWorker.__init__": ("method_queue", "nr_conns", "worker_connections"),
    f"{_GTHREAD}:ThreadWorker.init_process": ("get_thread_pool", "poller"),
    f"{_GTHREAD}:ThreadWorker.handle_exit": ("alive",),
    f"{_GTHREAD}:ThreadWorker.accept": ("enqueue_req",),
    f"{_GTHREAD}:ThreadWorker.handle": ("_keepalive_after", "handle_error"),
    f"{_GTHREAD}:ThreadWorker.run": (
        *("_cap_keepalive", "graceful_timeout", "murder_pending"),
        *("nr_conns", "set_accept_enabled", "worker_connections"),
    ),
    f"{_GTHREAD}:TConn.__init__": ("initialized", "parser", "sock", "timeout"),
    "gunicorn.workers.base:Worker.__init__": ("alive", "cfg", "ppid", "sockets"),
    "gunicorn.workers.base:Worker.load_wsgi": ("wsgi",),
    "gunicorn.http.unreader:Unreader.__init__": ("buf",),
    "gunicorn.http.unreader:Unreader.read": ("buf", "chunk"),
    "gunicorn.http.unreader:SocketUnreader.__init__": ("mxchunk", "sock"),
    "gunicorn.http.parser:Parser.__init__": ("unreader",),
    "gunicorn.arbiter:Arbiter.__init__": ("SIG_QUEUE",),
    "gunicorn.config:Config.__init__": ("env_orig",),
}


def require_expected_gunicorn() -> None:
    """Raise SystemExit where this gunicorn lacks a name that the room depends on."""
    differences = list(_differences())
    if differences:
        raise SystemExit(
            f"MES does not start:\ngunicorn {gunicorn.__version__} is not the gunicorn that MES "
            f"extends: {'; '.join(differences)}. Install the version that setup.cfg names"
        )


def _differences() -> Iterator[str]:
    for name, parameters in SIGNATURES.items():
        yield from _check(name, partial(_other_parameters, expected=parameters))
    for name, used in USES.items():
        yield from _check(name, partial(_unused, expected=used))


def _check(name: str, difference: Callable[[Callable[..., Any]], str]) -> Iterator[str]:
    short_name = name.partition(":")[2]
    try:
        method = pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        yield f"{short_name} is missing"
        return
    found = difference(inspect.unwrap(getattr(method, "__func__", method)))
    if found:
        yield f"{short_name} {found}"


def _other_parameters(method: Callable[..., Any], expected: tuple[str, ...]) -> str:
    found = tuple(inspect.signature(method).parameters)[1:]
    return "" if found == expected else f"takes ({', '.join(found)}), not ({', '.join(expected)})"


def _unused(method: Callable[..., Any], expected: tuple[str, ...]) -> str:
    missing = sorted(set(expected) - _names_used(method))
    return f"no longer uses {', '.join(missing)}" if missing else ""


def _names_used(method: Callable[..., Any]) -> set[str]:
    """Return the names that a method, or a function defined in it, refers to."""
    codes, names = [method.__code__], set[str]()
    while codes:
        code = codes.pop()
        names |= set(code.co_names)
        codes += [const for const in code.co_consts if inspect.iscode(const)]
    return names
