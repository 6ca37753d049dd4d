"""A proxy that keeps the requests of a client, to compare them with the recorded ones."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass(frozen=True)
class Exchange:
    """One request of a client, and the answer of the service."""

    method: str
    path: str
    body: Any
    status: int
    answer: str


@dataclass
class Recorder:
    """Forwards requests to the service at `target`, and keeps them in `exchanges`."""

    target: str
    exchanges: list[Exchange] = field(default_factory=list)

    def __enter__(self) -> Self:
        recorder = self

        class Handler(_Forward):
            target = urlsplit(recorder.target)
            exchanges = recorder.exchanges

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.request_queue_size = 256
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Forward(BaseHTTPRequestHandler):
    # HTTP/1.0: the end of the connection is the end of an answer, so that streams pass as they are.
    target: Any
    exchanges: list[Exchange]

    def _forward(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        upstream = HTTPConnection(self.target.hostname, self.target.port, timeout=240)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP}
        upstream.request(self.command, self.path, sent or None, headers)
        answer = upstream.getresponse()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        self.end_headers()
        text = b""
        # The exchange is kept before the client sees its end and may exit.
        while piece := answer.read1(65536):
            text += piece
            self.wfile.write(piece)
        self._keep(sent, answer.status, text)
        upstream.close()

    do_GET = do_POST = _forward

    def _keep(self, sent: bytes, status: int, text: bytes) -> None:
        body = json.loads(sent) if sent else None
        path = self.path.partition("?")[0]
        self.exchanges.append(Exchange(self.command, path, body, status, text.decode()))

    def log_message(self, *_: object) -> None:
        """Print nothing."""
