"""The undocumented names of gunicorn that this package overrides or reads."""

from __future__ import annotations

import gunicorn

from mes.config.library_interface import require_interface

_GTHREAD = "gunicorn.workers.gthread"

# The parameters that our overrides and calls rely on, without `self` or `cls`.
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
    f"{_GTHREAD}:ThreadWorker.on_client_socket_readable": ("conn", "client"),
    f"{_GTHREAD}:ThreadWorker.murder_keepalived": ("force",),
    f"{_GTHREAD}:ThreadWorker.murder_pending": (),
    f"{_GTHREAD}:ThreadWorker.init_signals": (),
    f"{_GTHREAD}:ThreadWorker.is_parent_alive": (),
    f"{_GTHREAD}:ThreadWorker.load_wsgi": (),
    f"{_GTHREAD}:ThreadWorker.notify": (),
    f"{_GTHREAD}:ThreadWorker.wait_for_and_dispatch_events": ("timeout",),
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
    "gunicorn.arbiter:Arbiter.spawn_worker": (),
}

# Attributes that we read, by the method of gunicorn that sets them, and methods of ours that
# gunicorn must call, by the method that calls them.
USES: dict[str, tuple[str, ...]] = {
    f"{_GTHREAD}:ThreadWorker.__init__": (
        *("keepalived_conns", "method_queue", "nr_conns", "worker_connections"),
    ),
    f"{_GTHREAD}:ThreadWorker.init_process": ("get_thread_pool", "poller"),
    f"{_GTHREAD}:ThreadWorker.handle_exit": ("alive",),
    f"{_GTHREAD}:ThreadWorker.accept": ("enqueue_req",),
    f"{_GTHREAD}:ThreadWorker.finish_request": ("keepalived_conns", "on_client_socket_readable"),
    f"{_GTHREAD}:ThreadWorker.handle": ("_keepalive_after", "handle_error"),
    f"{_GTHREAD}:ThreadWorker.run": (
        *("_cap_keepalive", "graceful_timeout", "murder_pending"),
        *("nr_conns", "set_accept_enabled", "wait_for_and_dispatch_events", "worker_connections"),
    ),
    f"{_GTHREAD}:TConn.__init__": ("initialized", "parser", "sock", "timeout"),
    # Both send what our socket keeps until the client reads it.
    "gunicorn.util:write": ("sendall", "write_chunk"),
    "gunicorn.util:write_chunk": ("sendall",),
    "gunicorn.workers.base:Worker.__init__": ("alive", "cfg", "ppid", "sockets"),
    "gunicorn.workers.base:Worker.init_process": ("load_wsgi",),
    "gunicorn.workers.base:Worker.load_wsgi": ("wsgi",),
    "gunicorn.http.unreader:Unreader.__init__": ("buf",),
    "gunicorn.http.unreader:Unreader.read": ("buf", "chunk"),
    "gunicorn.http.unreader:SocketUnreader.__init__": ("mxchunk", "sock"),
    "gunicorn.http.parser:Parser.__init__": ("unreader",),
    "gunicorn.arbiter:Arbiter.__init__": ("SIG_QUEUE",),
    "gunicorn.arbiter:Arbiter.spawn_workers": ("spawn_worker",),
    "gunicorn.config:Config.__init__": ("env_orig",),
}


def require_expected_gunicorn() -> None:
    """Raise SystemExit if this gunicorn lacks a name that the package depends on."""
    require_interface("gunicorn", gunicorn.__version__, signatures=SIGNATURES, uses=USES)
