"""The gunicorn worker of MES: threads for each kind of request, and fair shares of connections.

- Health checks, and requests without a key, have threads of their own. Requests without a key are
  limited, by address when there are many.
- A worker without a free thread leaves new connections to the other workers, if they take them.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from gunicorn.workers.gthread import TConn

from mes.server.gunicorn_interface import require_expected_gunicorn
from mes.server.polling_worker import BODY_THREADS
from mes.server.request_kinds import Admission, AdmittedRequest, RequestKind, address_of, kind_of
from mes.server.shutdown import GracefulWorker

# Few, because requests without a key only compute, and each busy thread delays the poller by 5 ms.
_THREADS_WITHOUT_KEY = 4
# More than one, because /ready may wait for a lock that a stopped worker holds.
_HEALTH_CHECK_THREADS = 8
# How long a worker without a free thread leaves a new connection to the other workers.
_LEFT_TO_OTHERS_SECONDS = 0.02


class Worker(GracefulWorker):
    """Gives each request that has arrived a thread of its kind."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._threads = self.cfg.threads + BODY_THREADS
        self._busy_threads = 0
        self._admission = Admission()
        self._admitted: dict[TConn, AdmittedRequest] = {}
        self._pools: dict[RequestKind, ThreadPoolExecutor] = {}

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        require_expected_gunicorn()
        if cfg.is_ssl:
            raise SystemExit(
                "MES does not start:\ncertfile: MES does not serve TLS; let the proxy do it"
            )

    @property
    def max_body_bytes(self) -> int:
        return int(self._services.settings.max_body_bytes)

    @property
    def write_timeout_seconds(self) -> float:
        return float(self._services.settings.stream_write_timeout_seconds)

    def get_thread_pool(self) -> ThreadPoolExecutor:
        self._pools = {
            RequestKind.HEALTH_CHECK: ThreadPoolExecutor(_HEALTH_CHECK_THREADS),
            RequestKind.WITHOUT_KEY: ThreadPoolExecutor(_THREADS_WITHOUT_KEY),
            RequestKind.WITH_KEY: ThreadPoolExecutor(self._threads),
        }
        return self._pools[RequestKind.WITH_KEY]

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        if self._busy_threads < self._threads:
            super().wait_for_and_dispatch_events(timeout)
            return
        super().wait_for_and_dispatch_events(min(timeout, _LEFT_TO_OTHERS_SECONDS))
        if self.alive and self.nr_conns < self.worker_connections:
            # All workers may be without a free thread, and must still answer health checks.
            for listener in self.sockets:
                self.accept(listener)

    def set_accept_enabled(self, enabled: bool) -> None:
        # The main loop calls this in each round, so accepting resumes when a thread is free.
        super().set_accept_enabled(enabled and self._busy_threads < self._threads)

    def admit(self, conn: TConn) -> None:
        """Determine the kind of the request. Raise ServiceBusy if it must be refused."""
        head, services = conn.parser.unreader.head, self._services
        kind = kind_of(head, lambda key: services.keys.find(key) is not None)
        proxies = services.settings.trusted_proxies
        request = AdmittedRequest(kind, address_of(head, conn.client[0], trusted_proxies=proxies))
        self._admission.admit(request)
        self._admitted[conn] = request

    def release(self, conn: TConn) -> None:
        self._admission.release(self._admitted.pop(conn))

    def give_thread(self, conn: TConn) -> None:
        kind = self._admitted[conn].kind
        future = self._pools[kind].submit(self.handle, conn)
        future.add_done_callback(partial(self.method_queue.defer, self.finish_request, conn))
        self._busy_threads += kind is RequestKind.WITH_KEY
        if self._busy_threads >= self._threads:
            self.set_accept_enabled(False)

    def finish_request(self, conn: TConn, fs: Future[Any]) -> None:
        kind = self._admitted[conn].kind
        self._busy_threads -= kind is RequestKind.WITH_KEY
        if kind is RequestKind.HEALTH_CHECK and conn.sock.unsent_bytes:
            conn.sock.reset()  # these are not limited, so they are not kept
            self.forget(conn)
        else:
            super().finish_request(conn, fs)
