"""gunicorn's hooks: the master's part in starting, reloading and stopping, and freed memory."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import time
from contextlib import closing, suppress
from typing import Any

from mes.config.api_keys import ApiKeysError, ApiKeysFile, is_accessible_by_others
from mes.config.catalog import Catalog, CatalogError, CatalogFile
from mes.config.settings import Settings, SettingsError, load
from mes.scheduling.file_lock import InstanceLock, StateDirUnavailable, unusable
from mes.scheduling.registry import PERMIT
from mes.scheduling.serialization import VERSION, decode
from mes.scheduling.shared_file import Handle
from mes.scheduling.shared_resources import SharedFlag, SharedResources
from mes.scheduling.store import Snapshot

log = logging.getLogger(__name__)

# The environment variable with the descriptors that a master passes to the one that gunicorn
# starts in its place (SIGUSR2). Another version could not read the files, so it has another name.
_INHERITED = f"MES_INHERITED_STATE_{VERSION}"

CONFIGURATION_ERRORS = (SettingsError, CatalogError, ApiKeysError)


def configuration() -> tuple[Settings, Catalog]:
    """Return the settings and the catalog. Raises one of CONFIGURATION_ERRORS."""
    settings = load()
    catalog = CatalogFile(settings.models_config_path, settings.default_timeout_seconds)
    if settings.api_keys_file is not None:
        ApiKeysFile(settings.api_keys_file).current()
    return settings, catalog.current()


class Master:
    """The master of one instance; its workers inherit `shared`.

    Args:
        server: gunicorn's arbiter.
        inherited: The descriptors of the master that this one replaces: of the registry, the
            runtime status and the instance lock. Empty if it replaces none.

    Raises:
        StateDirUnavailable: the directory belongs to another instance, or cannot be written.
    """

    def __init__(self, server: Any, inherited: list[int]) -> None:
        self._server = server
        self._settings, self._catalog = configuration()
        self.instance_lock = InstanceLock(
            self._settings.state_dir, master=os.getpid(), address=self._settings.bind
        )
        self.shared = self._inherit(*inherited) if inherited else self._open()

    def _inherit(self, registry: int, runtime_status: int, lock: int) -> SharedResources:
        self.instance_lock.inherit(lock)
        directory = self._settings.state_dir
        return SharedResources.inherit(directory, registry, runtime_status, stopping)

    def _open(self) -> SharedResources:
        directory = self._settings.state_dir
        self.instance_lock.acquire()
        try:
            # Workers that outlive a killed master keep the deleted file, and one of them is
            # their leader; this instance needs a leader of its own.
            (directory / "runtime_status.json").unlink(missing_ok=True)
            return SharedResources.open(
                directory,
                requests=self._catalog.capacity,
                models=len(self._catalog.models),
                stopping=stopping,
            )
        except OSError as exc:
            raise unusable(directory, exc) from exc

    def warn(self) -> None:
        """Log a warning about a file of API keys that other users can read."""
        keys = self._settings.api_keys_file
        if keys is not None and is_accessible_by_others(keys):
            fields = {"path": str(keys), "remedy": f"chmod 600 {keys}"}
            log.warning("api_keys_file_too_open", extra=fields)

    def stop(self) -> None:
        """On SIGTERM, report it on /ready, give proxies time to see that, and stop."""
        stopping.set()
        fields = {"notice_seconds": self._settings.stop_notice_seconds, **self._requests()}
        log.info("stopping", extra=fields)
        time.sleep(self._settings.stop_notice_seconds)
        type(self._server).handle_term(self._server)

    def _requests(self) -> dict[str, int]:
        """Return how many requests run and wait, for the log."""
        with suppress(OSError, ValueError), closing(Handle(self.shared.registry)) as handle:
            state = decode(handle.read().content, self._settings.max_loaded_models)
            waiting = sum(ticket.wants == PERMIT for ticket in state.tickets.values())
            return {"running": len(state.permits), "waiting": waiting}
        return {}

    def reload(self) -> None:
        """On SIGHUP, reload, unless the service could not start with the new configuration."""
        try:
            settings, _ = configuration()
            if settings.state_dir != self._settings.state_dir:
                raise SettingsError("STATE_DIR: cannot change while MES runs; restart it")
        except CONFIGURATION_ERRORS as exc:
            # gunicorn would end and leave its workers without a master.
            log.error("reload_refused", extra={"problem": str(exc)})
            return
        self._settings = settings
        type(self._server).handle_hup(self._server)

    def spawn_worker(self) -> Any:
        """Fork a worker. If the system refuses that, log it; gunicorn tries again each second."""
        try:
            return type(self._server).spawn_worker(self._server)
        except OSError as exc:
            if not worker_started:
                raise
            # gunicorn would end, and all workers with it.
            log.error("worker_not_started", extra={"problem": str(exc)})
            return None

    def pass_on(self) -> None:
        """On SIGUSR2, let the master that is about to start inherit the files and the lock."""
        files = (self.shared.registry.fd, self.shared.runtime_status.fd)
        for fd in files:
            os.set_inheritable(fd, True)
        fds = (*files, self.instance_lock.make_inheritable())
        self._server.cfg.env_orig[_INHERITED] = " ".join(map(str, fds))

    def save(self) -> None:
        """Keep the state for the next start even if the file's name was deleted."""
        with suppress(OSError), closing(Snapshot(self.shared.registry)) as snapshot:
            snapshot.save()


stopping = SharedFlag()
# Set when the first worker is ready. Until then, a worker that cannot start ends the service.
worker_started = SharedFlag()
_inherited = [int(fd) for fd in os.environ.pop(_INHERITED, "").split()]
_master: Master | None = None


def shared() -> SharedResources:
    """Return the resources that the master has opened for its workers."""
    assert _master is not None
    return _master.shared


# The hooks, by the names that gunicorn defines. mes/serve/gunicorn_conf.py imports them.


def on_starting(server: Any) -> None:
    global _master
    try:
        server.mes = _master = Master(server, _inherited)
    except StateDirUnavailable as exc:
        raise SystemExit(f"MES does not start:\n{exc}") from None
    server.mes.warn()
    server.handle_term = server.mes.stop
    server.handle_hup = server.mes.reload
    server.spawn_worker = server.mes.spawn_worker


def pre_exec(server: Any) -> None:
    server.mes.pass_on()


def post_fork(server: Any, worker: Any) -> None:
    # Only the master holds the lock, so that workers that outlive it do not block its successor.
    server.mes.instance_lock.close()
    worker.caught_in_fork = server.SIG_QUEUE


def on_exit(server: Any) -> None:
    server.mes.save()


# glibc keeps freed memory for later use: a worker that had sent some hundred large answers, each
# from another thread, occupied 260 MB and used 45 MB. Blocks of this size are returned when they
# are freed; glibc's own threshold grows to the size of the largest block freed so far, separately
# for each thread's arena.
_RETURNED_BLOCK_BYTES = 128 * 1024
_M_TRIM_THRESHOLD = -1
# Memory between blocks in use is returned by `malloc_trim`, which takes a few milliseconds.
_TRIM_INTERVAL_SECONDS = 5.0


def post_worker_init(worker: object) -> None:
    """Return freed memory to the system from now on, if the C library is glibc."""
    worker_started.set()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim"):
        libc.mallopt(_M_TRIM_THRESHOLD, _RETURNED_BLOCK_BYTES)
        threading.Thread(target=_trim_repeatedly, args=(libc,), name="trim", daemon=True).start()


def _trim_repeatedly(libc: ctypes.CDLL) -> None:
    while True:
        time.sleep(_TRIM_INTERVAL_SECONDS)
        libc.malloc_trim(0)
