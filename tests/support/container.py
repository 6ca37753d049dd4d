"""The image of the Dockerfile, built and run by buildah on a Debian that debootstrap makes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.support import process
from tests.support.process import ROOT

_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_PACKAGES = "python3,python3-venv,ca-certificates"
# The prefix of the Python in python:3.11-slim.
_PREFIX = "/usr/local"


def why_not() -> str | None:
    """Return the reason that no image can be built here, or None."""
    if os.getuid() != 0:
        return "only root can make a root file system"
    missing = [each for each in ("debootstrap", "buildah") if not shutil.which(each)]
    return f"apt-get install {' '.join(missing)}" if missing else None


class Image:
    """The image that the Dockerfile makes, in its own buildah store."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # The digest is that of the image in the registry.
        text = re.sub("@sha256:[0-9a-f]{64}", "", (ROOT / "Dockerfile").read_text())
        (folder / "Dockerfile").write_text(text)
        self._make_base(f"docker.io/library/{re.findall('^FROM (.+) AS build$', text, re.M)[0]}")
        shown = f"{_CERTIFICATES}:{_CERTIFICATES}:ro"
        build = ["--pull=never", "--format=docker", "--network=host", "--volume", shown]
        build += ["--file", f"{folder}/Dockerfile", "--tag", "mes"]
        self._buildah("build", *build, str(ROOT))
        self._buildah("from", "--pull=never", "--name", "mes", "localhost/mes")

    def _make_base(self, name: str) -> None:
        base = str(self._folder / "base")
        _run("debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", base)
        _run("chroot", base, "python3", "-m", "venv", _PREFIX)
        self._buildah("from", "--name", "base", "scratch")
        self._buildah("add", "base", base, "/")
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self._buildah("config", "--env", f"PATH={path}", "base")
        self._buildah("commit", "base", name)

    def _command(self, *words: str) -> list[str]:
        store = ["--root", f"{self._folder}/store", "--runroot", f"{self._folder}/run"]
        return ["buildah", *store, "--storage-driver=vfs", *words]

    def _buildah(self, verb: str, *words: str) -> str:
        isolated = ["--isolation=chroot"] if verb in ("build", "run") else []
        return _run(*self._command(verb, *isolated, *words))

    def succeeds(self, *command: str, **environ: object) -> bool:
        """Return whether the command exits with 0 in a container of the image."""
        # The exit code is used because buildah sometimes loses the last output of short commands.
        return not subprocess.run(self._in_container(*command, **environ), timeout=60).returncode

    def start(self, *command: str, output: Path, **environ: object) -> Any:
        """Start a command in a container of the image, on the network of this machine."""
        return process.start(
            self._in_container(*command, **environ), env=dict(os.environ), output=output
        )

    def _in_container(self, *command: str, **environ: object) -> list[str]:
        variables = [f"--env={name}={value}" for name, value in environ.items()]
        return self._command("run", "--isolation=chroot", *variables, "mes", "--", *command)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout
