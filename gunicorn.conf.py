"""How gunicorn runs MES. Every number here is computed from the settings.

Each name in this file that gunicorn knows is a setting, imported ones included.
"""

import logging
import resource
from pathlib import Path

from gunicorn.glogging import Logger

# Imported once, here in the master, so that a worker is there at once when another has died.
import mes.app  # noqa: F401
from mes import logs
from mes.catalog import CatalogError, CatalogFile
from mes.keysfile import KeysError, KeysFile, open_to_others
from mes.settings import SettingsError, load

try:
    _settings = load()
    _catalog = CatalogFile(_settings.models_config_path, _settings.default_timeout_seconds)
    _capacity = _catalog.current().capacity
    if _settings.api_keys_file is not None:
        KeysFile(_settings.api_keys_file).current()
except (SettingsError, CatalogError, KeysError) as exc:
    raise SystemExit(f"MES does not start:\n{exc}") from None

bind = _settings.bind
workers = _settings.workers
worker_class = "mes.gunicorn_worker.Worker"
# A generation blocks a thread. One worker may happen to get every request there is room for, so it
# has threads for all of them, and some more for health, status and models.
threads = _settings.threads_for(_capacity)
worker_connections = threads + 1000
# Each of them takes a file descriptor, and so does each generation.
_, _most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (_most_files, _most_files))
# The catalog may have grown by the time a worker starts anew; the threads have not.
raw_env = [f"THREADS={threads}"]

# How long a worker's main loop may be silent. Requests run in threads and may take longer.
timeout = 60
graceful_timeout = _settings.graceful_timeout_seconds
# A head is also refused as a whole beyond 32 KiB. Model names have up to 200 characters, keys 512.
limit_request_line = 4094
limit_request_fields = 64
limit_request_field_size = 8190
# Nobody may tell us our own path and scheme; whose word counts for addresses is TRUSTED_PROXIES.
forwarded_allow_ips = ""

# Longer than a proxy keeps its idle connections (nginx: 60 s), so that the proxy closes first.
keepalive = 75

# Heartbeats are files; on a disk they can block the worker.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None
# Nobody uses gunicorn's own remote control here.
control_socket_disable = True
logconfig_dict = logs.logconfig(_settings.log_level)


def on_starting(server: object) -> None:
    """Tell once, and not in each worker, what is allowed but unwise."""
    keys = _settings.api_keys_file
    if keys is not None and open_to_others(keys):
        told = {"path": str(keys), "remedy": f"chmod 600 {keys}"}
        logging.getLogger("mes.keys").warning("keys_file_open_to_others", extra=told)


class logger_class(Logger):
    """Gunicorn's log without its access log: MES writes a better line about each request."""

    def access(self, *args: object) -> None:
        pass
