"""What MES adds to gunicorn's master: it owns its state, and ends and reloads with care."""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from typing import Any

from mes.config.api_keys import ApiKeysError, ApiKeysFile, is_accessible_by_others
from mes.config.catalog import CatalogError, CatalogFile
from mes.config.settings import Settings, SettingsError, load
from mes.scheduling.copy import Copy
from mes.scheduling.document import VERSION
from mes.scheduling.ownership import CannotOwn, Ownership
from mes.shared import Document, Memory, Shared

log = logging.getLogger(__name__)

# Where a master tells the one that gunicorn starts in its place (SIGUSR2) what it has inherited.
# Another version could not read it, and begins with a state of its own.
_HANDED_ON = f"STATE_HANDED_ON_{VERSION}"


BROKEN = (SettingsError, CatalogError, ApiKeysError)


def configuration() -> tuple[Settings, int]:
    """The settings, and how many requests the catalog has room for.

    Raises one of BROKEN, with all that is wrong.
    """
    settings = load()
    catalog = CatalogFile(settings.models_config_path, settings.default_timeout_seconds)
    if settings.api_keys_file is not None:
        ApiKeysFile(settings.api_keys_file).current()
    return settings, catalog.current().capacity


class Master:
    """The master of one instance; its workers inherit `shared`."""

    def __init__(self, server: Any, shared: Shared, inherited_lock: int | None) -> None:
        self._server = server
        self._shared = shared
        self._settings = load()
        self.ownership = Ownership(
            self._settings.state_dir, master=os.getpid(), address=self._settings.bind
        )
        if inherited_lock is None:
            self.ownership.take()
        else:
            self.ownership.inherit(inherited_lock)

    def warn(self) -> None:
        """Tell once, and not in each worker, what is allowed but unwise."""
        keys = self._settings.api_keys_file
        if keys is not None and is_accessible_by_others(keys):
            told = {"path": str(keys), "remedy": f"chmod 600 {keys}"}
            log.warning("keys_file_open_to_others", extra=told)

    def stop(self) -> None:
        """SIGTERM: say so, leave others time to see it, then stop."""
        self._shared.stopping.set()
        log.info("stopping", extra={"notice_seconds": self._settings.stop_notice_seconds})
        time.sleep(self._settings.stop_notice_seconds)
        type(self._server).handle_term(self._server)

    def reload(self) -> None:
        """SIGHUP: reload, unless the new configuration could not be started with."""
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

    def hand_on(self) -> None:
        """SIGUSR2: let the program that is started now in our place inherit what is ours."""
        memories = (self._shared.registry.fd, self._shared.sight.fd)
        for fd in memories:
            os.set_inheritable(fd, True)
        fds = (*memories, self.ownership.hand_on())
        self._server.cfg.env_orig[_HANDED_ON] = " ".join(map(str, fds))

    def save(self) -> None:
        """Keep the state for the next start."""
        with suppress(OSError):  # it only spares work
            Copy(self._settings.state_dir).save(*Document(self._shared.registry).read())


def _inherit(fds: list[int]) -> tuple[Shared, int | None]:
    """What the workers share, and the descriptor of the lock, if another master had them."""
    if not fds:
        return Shared(), None
    registry, sight, lock = fds
    return Shared(Memory("registry", registry), Memory("sight", sight)), lock


shared, _lock = _inherit([int(fd) for fd in os.environ.pop(_HANDED_ON, "").split()])


# Gunicorn's hooks, by the names it knows.


def on_starting(server: Any) -> None:
    try:
        server.mes = Master(server, shared, _lock)
    except CannotOwn as exc:
        raise SystemExit(f"MES does not start:\n{exc}") from None
    server.mes.warn()
    server.handle_term = server.mes.stop
    server.handle_hup = server.mes.reload


def pre_exec(server: Any) -> None:
    server.mes.hand_on()


def post_fork(server: Any, worker: Any) -> None:
    # The lock is the master's alone: workers that outlive it do not keep its successor waiting.
    server.mes.ownership.let_go()
    worker.caught_in_fork = server.SIG_QUEUE


def on_exit(server: Any) -> None:
    server.mes.save()
