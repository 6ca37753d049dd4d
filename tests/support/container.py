"""The image of the Dockerfile, built and run without an engine: buildah on a Debian made here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.support import process
from tests.support.process import ROOT

_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_PACKAGES = "python3,python3-venv,ca-certificates"
# Where python:3.11-slim has its Python too.
_PREFIX = "/usr/local"


def why_not() -> str | None:
    """What is missing to build an image."""
    if os.getuid() != 0:
        return "only root can make a root file system"
    missing = [each for each in ("debootstrap", "buildah") if not shutil.which(each)]
    return f"apt-get install {' '.join(missing)}" if missing else None


class Image:
    """What the Dockerfile makes, in a store of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._make_base("docker.io/library/python:3.11-slim-bookworm")
        shown = f"{_CERTIFICATES}:{_CERTIFICATES}:ro"
        build = ["--pull=never", "--format=docker", "--network=host", "--volume", shown]
        self._buildah("build", *build, "--tag", "mes", str(ROOT))
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
        """Does this command, in a container of the image, end well?"""
        # By its exit code: buildah loses the last words of short commands now and then.
        return not subprocess.run(self._in_container(*command, **environ), timeout=60).returncode

    def start(self, *command: str, output: Path, **environ: object) -> Any:
        """A command in a container of the image, on this machine's network."""
        return process.start(
            self._in_container(*command, **environ), env=dict(os.environ), output=output
        )

    def _in_container(self, *command: str, **environ: object) -> list[str]:
        told = [f"--env={name}={value}" for name, value in environ.items()]
        return self._command("run", "--isolation=chroot", *told, "mes", "--", *command)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout
