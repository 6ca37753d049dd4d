"""A real nginx with the shipped configuration, in front of a server of a test."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
from pathlib import Path
from typing import Self

import pytest

from tests.support import process
from tests.support.process import ROOT, free_port, wait_until

# On Debian it is in /usr/sbin, which is not in the PATH of all users.
PROGRAM = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
SHIPPED = ROOT / "deploy" / "nginx.conf"
NEEDED = pytest.mark.skipif(not PROGRAM, reason="no nginx here: apt-get install nginx-light")

_MARK = "        # --- TLS\n"


def with_tls(text: str) -> str:
    """Return the configuration with TLS turned on as its comments instruct."""
    before, lines, after = text.partition(_MARK)[0], *_between(text)
    return replaced(before, "listen 80 ", "# listen 80 ") + lines.replace("# ", "") + after


def _between(text: str) -> tuple[str, str]:
    lines, found, after = text.partition(_MARK)[2].partition("        # ---\n")
    assert found, "the marks around the lines for TLS are gone"
    return lines, after


def replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old!r} is not there once"
    return text.replace(old, new)


class Nginx:
    """nginx as a process; only ports and paths differ from the shipped configuration."""

    def __init__(self, folder: Path, upstream_port: int, *, text: str | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.output = folder / "nginx.log"
        self._file = folder / "nginx.conf"
        self._file.write_text(self._with_own_paths(text or SHIPPED.read_text(), upstream_port))
        # Its workers can read the folder of a test only as the user that owns it.
        directives = f"daemon off; pid {folder}/pid; user {getpass.getuser()};"
        command = [str(PROGRAM), "-e", "stderr", "-c", str(self._file), "-g", directives]
        self.process = process.start(command, env=dict(os.environ), output=self.output)
        wait_until(self._listens, why=self.output)

    def _with_own_paths(self, text: str, upstream_port: int) -> str:
        port = "443" if "\n        listen 443 " in text else "80"
        text = replaced(
            text, f"\n        listen {port} ", f"\n        listen 127.0.0.1:{self.port} "
        )
        text = replaced(text, "server 127.0.0.1:8001 ", f"server 127.0.0.1:{upstream_port} ")
        text = text.replace("/var/log/nginx/", f"{self.folder}/")
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{kind}_temp_path {self.folder}/{kind};\n" for kind in kinds)
        return replaced(text, "http {\n", f"http {{\n{paths}")

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.output.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def close(self) -> None:
        process.kill(self.process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
