"""Clients of a soak test that ask for large answers and do not read them."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack, suppress

from tests.support.service import Service

CONNECTIONS = 300
# Shorter than the time without faults at the end of a soak test.
_SECONDS = 4.0
_PATHS = ("/docs", "/openapi.json")
# As on a real network: with the large segments of a loopback interface, the system keeps 2.5 MB.
_SEGMENT_BYTES = 536
_BUFFER_BYTES = 2048


def ask_without_reading(service: Service) -> None:
    """Open many connections without a key, read nothing, and close them after some seconds."""
    threading.Thread(target=_ask, args=(service.port,), daemon=True).start()


def _ask(port: int) -> None:
    with ExitStack() as stack:
        for number in range(CONNECTIONS):
            with suppress(OSError):  # the worker with this connection was killed
                sock = stack.enter_context(_connect(port))
                path = _PATHS[number % len(_PATHS)]
                sock.sendall(f"GET {path} HTTP/1.1\r\nHost: mes\r\n\r\n".encode())
        time.sleep(_SECONDS)


def _connect(port: int) -> socket.socket:
    sock = socket.socket()
    sock.settimeout(_SECONDS)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT_BYTES)
    sock.connect(("127.0.0.1", port))
    return sock
