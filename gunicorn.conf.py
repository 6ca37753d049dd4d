"""How gunicorn runs MES. Every number here is computed from the settings.

Each name in this file that gunicorn knows is a setting, imported ones included.
"""

import resource
from pathlib import Path

from gunicorn.glogging import Logger

# Imported once, here in the master, so that a worker is there at once when another has died.
import mes.app  # noqa: F401
from mes import logs
from mes.ollama.http_interface import require_expected_http_libraries
from mes.server.freed_memory import post_worker_init  # noqa: F401
from mes.server.gunicorn_interface import require_expected_gunicorn
from mes.server.master import BROKEN, configuration, on_exit, on_starting, post_fork, pre_exec  # noqa: F401

require_expected_gunicorn()
require_expected_http_libraries()
try:
    _settings, _capacity = configuration()
except BROKEN as exc:
    raise SystemExit(f"MES does not start:\n{exc}") from None

bind = _settings.bind
workers = _settings.workers
worker_class = "mes.server.worker.Worker"
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
# Workers break off by themselves what still runs after GRACEFUL_TIMEOUT; this is for the answers.
graceful_timeout = _settings.graceful_timeout_seconds + 2
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


class logger_class(Logger):
    """Gunicorn's log without its access log: MES writes a better line about each request."""

    def access(self, *args: object) -> None:
        pass
