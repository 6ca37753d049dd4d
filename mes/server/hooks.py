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
from mes.scheduling.serialization import VERSION
from mes.scheduling.shared_resources import SharedResources, StopFlag
from mes.scheduling.store import Snapshot

# Hooks of gunicorn: the master owns STATE_DIR, opens the shared files, stops and reloads.

log = logging.getLogger(__name__)

# The descriptors that a master leaves to the one that gunicorn starts in its place (SIGUSR2), in
# this variable of the environment. Another version could not read the files, and does not start.
_INHERITED = f"MES_INHERITED_STATE_{VERSION}"

BROKEN = (SettingsError, CatalogError, ApiKeysError)


def configuration() -> tuple[Settings, Catalog]:
    """Return the settings and the catalog. Raises one of BROKEN, with all that is wrong."""
    settings = load()
    catalog = CatalogFile(settings.models_config_path, settings.default_timeout_seconds)
    if settings.api_keys_file is not None:
        ApiKeysFile(settings.api_keys_file).current()
    return settings, catalog.current()


class Master:
    """The master of one instance; its workers inherit `shared`.

    Args:
        server: Gunicorn's arbiter.
        inherited: The descriptors of the master in whose place this one was started: of the
            registry, the runtime status and the lock on the directory.

    Raises StateDirUnavailable.
    """

    def __init__(self, server: Any, inherited: list[int]) -> None:
        self._server = server
        self._settings, self._catalog = configuration()
        self.instance_lock = InstanceLock(
            self._settings.state_dir, master=os.getpid(), address=self._settings.bind
        )
        self.shared = self._take_over(*inherited) if inherited else self._open()

    def _take_over(self, registry: int, runtime_status: int, lock: int) -> SharedResources:
        self.instance_lock.inherit(lock)
        directory = self._settings.state_dir
        return SharedResources.inherit(directory, registry, runtime_status, stopping)

    def _open(self) -> SharedResources:
        directory = self._settings.state_dir
        self.instance_lock.take()
        try:
            # Workers that outlive a killed master keep theirs, and the lead that goes with it.
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
        """Log a configuration that is allowed but unwise, once for all workers."""
        keys = self._settings.api_keys_file
        if keys is not None and is_accessible_by_others(keys):
            told = {"path": str(keys), "remedy": f"chmod 600 {keys}"}
            log.warning("api_keys_file_too_open", extra=told)

    def stop(self) -> None:
        """SIGTERM: report it on /ready, leave proxies time to see it, then stop."""
        stopping.set()
        log.info("stopping", extra={"notice_seconds": self._settings.stop_notice_seconds})
        time.sleep(self._settings.stop_notice_seconds)
        type(self._server).handle_term(self._server)

    def reload(self) -> None:
        """SIGHUP: reload, unless the service could not start with the new configuration."""
        try:
            settings, _ = configuration()
            if settings.state_dir != self._settings.state_dir:
                raise SettingsError("STATE_DIR: cannot change while MES runs; restart it")
        except BROKEN as exc:
            # Gunicorn would end, and leave its workers to themselves.
            log.error("reload_refused", extra={"problem": str(exc)})
            return
        self._settings = settings
        type(self._server).handle_hup(self._server)

    def bequeath(self) -> None:
        """SIGUSR2: let the master that is started now inherit the files and the lock."""
        files = (self.shared.registry.fd, self.shared.runtime_status.fd)
        for fd in files:
            os.set_inheritable(fd, True)
        fds = (*files, self.instance_lock.bequeath())
        self._server.cfg.env_orig[_INHERITED] = " ".join(map(str, fds))

    def save(self) -> None:
        """Keep the state for the next start, also where the file's name was deleted."""
        with suppress(OSError), closing(Snapshot(self.shared.registry)) as snapshot:
            snapshot.save()


stopping = StopFlag()
_inherited = [int(fd) for fd in os.environ.pop(_INHERITED, "").split()]
_master: Master | None = None


def shared() -> SharedResources:
    """Return what the master has opened for its workers."""
    assert _master is not None
    return _master.shared


# Gunicorn's hooks, by the names it knows.


def on_starting(server: Any) -> None:
    global _master
    try:
        server.mes = _master = Master(server, _inherited)
    except StateDirUnavailable as exc:
        raise SystemExit(f"MES does not start:\n{exc}") from None
    server.mes.warn()
    server.handle_term = server.mes.stop
    server.handle_hup = server.mes.reload


def pre_exec(server: Any) -> None:
    server.mes.bequeath()


def post_fork(server: Any, worker: Any) -> None:
    # The lock is the master's alone: workers that outlive it do not keep its successor waiting.
    server.mes.instance_lock.let_go()
    worker.caught_in_fork = server.SIG_QUEUE


def on_exit(server: Any) -> None:
    server.mes.save()


# Freed memory is returned to the machine, which glibc by itself keeps for later use.

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
