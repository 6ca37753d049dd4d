"""The configuration of gunicorn, computed from the settings of MES.

Gunicorn reads every name in this file that is one of its settings, including imported names.
"""

import resource
from pathlib import Path

from gunicorn.glogging import Logger

# Imported in the master, so that a worker that replaces a dead one starts without this delay.
import mes.app  # noqa: F401
from mes import logs
from mes.ollama.http_interface import require_expected_http_libraries
from mes.server.gunicorn_interface import require_expected_gunicorn
from mes.server.hooks import (  # noqa: F401
    CONFIGURATION_ERRORS,
    configuration,
    on_exit,
    on_starting,
    post_fork,
    post_worker_init,
    pre_exec,
)

require_expected_gunicorn()
require_expected_http_libraries()
try:
    _settings, _catalog = configuration()
except CONFIGURATION_ERRORS as exc:
    raise SystemExit(f"MES does not start:\n{exc}") from None

bind = _settings.bind
workers = _settings.workers
worker_class = "mes.server.worker.Worker"
# A generation blocks a thread. One worker may get all the requests that may run or wait, so it has
# threads for all of them, and some more for health, status and models.
threads = _settings.threads_for(_catalog.capacity)
worker_connections = threads + 1000
# Each connection takes a file descriptor, and so does each generation.
_, _most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (_most_files, _most_files))
# The catalog may have grown when a worker is replaced, but the number of threads stays the same.
raw_env = [f"THREADS={threads}"]

# The longest time in seconds without a heartbeat from a worker's main loop. Requests run in other
# threads and may take longer.
timeout = 60
# Workers cancel running requests after GRACEFUL_TIMEOUT; two seconds are left to send the errors.
graceful_timeout = _settings.graceful_timeout_seconds + 2
# Headers of more than 32 KiB in total are refused too. The longest URLs contain a model name (200
# characters), the longest fields an API key (512).
limit_request_line = 4094
limit_request_fields = 64
limit_request_field_size = 8190
# No proxy may set the path and the scheme; TRUSTED_PROXIES governs the addresses of clients.
forwarded_allow_ips = ""

# Longer than proxies keep idle connections (nginx: 60 s), so that the proxy closes first.
keepalive = 75

# Heartbeats are files, and writing to a disk could block the worker.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None
# MES does not use gunicorn's control socket.
control_socket_disable = True
logconfig_dict = logs.logconfig(_settings.log_level)


class logger_class(Logger):
    """Gunicorn's logger without its access log: MES logs each request with more detail."""

    def access(self, *args: object) -> None:
        pass
