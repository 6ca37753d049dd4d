"""The duration of `/health` with slow clients, for the worker class of MES or of gunicorn.

Runs MES with one worker, and requests `/health` in four situations: alone; just after a client has
got its response and leaves its connection open; while 300 clients have sent half a request; and
while 300 clients have asked for the documentation and do not read it. To compare with the plain
worker class, set `worker_class = "gthread"` in another checkout's mes/serve/gunicorn_conf.py:

    python -m bench.slow_clients --beside gthread=../another-checkout
"""

from __future__ import annotations

import argparse
import socket
import statistics
import time
from contextlib import ExitStack

from bench import checkouts
from tests.support.service import FakeOllama, Service

MODEL = "slow:1b"
CLIENTS, TIMES, MOST_SECONDS = 300, 5, 8.0
_HALF = b"POST /v1/inference HTTP/1.1\r\nHost: localhost\r\n"
_PAGE = b"GET /docs HTTP/1.1\r\nHost: localhost\r\n\r\n"
_HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    checkouts.add_option(parser)
    options = parser.parse_args()
    models = {MODEL: {"max_concurrent": 4, "max_queue": 28}}
    with (
        FakeOllama(f"--models={MODEL}") as runtime,
        checkouts.services(options.beside, ollama_url=runtime.url, models=models) as services,
    ):
        columns = ("alone", "lingering", "300 halves", "300 unread")
        print(f"{'target':12} {' '.join(f'{each:>10}' for each in columns)}  ms, median")
        for name, service in services.items():
            medians = (
                _alone(service),
                _after_lingering(service),
                _among(service, _HALF),
                _among(service, _PAGE),
            )
            print(f"{name:12} " + " ".join(f"{each:10.1f}" for each in medians))


def _alone(service: Service) -> float:
    return statistics.median(_health_ms(service) for _ in range(TIMES))


def _after_lingering(service: Service) -> float:
    times = []
    for _ in range(TIMES):
        with _connected(service, _HEALTH) as lingering:
            lingering.recv(4096)
            time.sleep(0.05)  # until the worker starts to close this connection
            times.append(_health_ms(service))
    return statistics.median(times)


def _among(service: Service, sent: bytes) -> float:
    with ExitStack() as stack:
        for _ in range(CLIENTS):
            stack.enter_context(_connected(service, sent))
        return statistics.median(_health_ms(service) for _ in range(TIMES))


def _health_ms(service: Service) -> float:
    """Return the time until the first byte of the response, or the limit if none arrived."""
    began = time.perf_counter()
    with _connected(service, _HEALTH) as connection:
        connection.settimeout(MOST_SECONDS)
        try:
            connection.recv(4096)
        except TimeoutError:
            pass
    return (time.perf_counter() - began) * 1000


def _connected(service: Service, sent: bytes) -> socket.socket:
    connection = socket.socket()
    # As on a real network: of large segments, the system keeps 2.5 MB for a client.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    connection.connect(("127.0.0.1", service.port))
    connection.sendall(sent)
    return connection


if __name__ == "__main__":
    main()
