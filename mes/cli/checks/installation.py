"""Checks of the installation: libraries and the state directory."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from mes.cli.checks import Finding, Findings, fail, ok, or_else, warn

# The installation: Python and the libraries, in versions that MES was made for.

_LIBRARY_SUBJECT = "installation"
# The name in setup.cfg; `mes` in the package index is another project.
_DISTRIBUTION = "openbench-mes"


def library_findings() -> Findings:
    """Whatever is missing, too old or too new."""
    try:
        required = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        yield warn(
            _LIBRARY_SUBJECT, "MES is run without being installed; pip install -e . in its folder"
        )
        return
    yield from libraries(required, metadata.version)


def libraries(required: Iterable[str], installed: Callable[[str], str]) -> Findings:
    """The libraries that MES requires, against those that are there."""
    base = [
        each for each in map(Requirement, required) if not each.marker or each.marker.evaluate()
    ]
    found = [wrong for each in base for wrong in _library(each, installed)]
    good = f"Python {platform.python_version()}, gunicorn {_version('gunicorn', installed)}"
    yield from or_else(
        found, ok(_LIBRARY_SUBJECT, f"{good} and {len(base) - 1} more libraries as required")
    )


def _library(required: Requirement, installed: Callable[[str], str]) -> Iterable[Finding]:
    version = _version(required.name, installed)
    if version is None:
        yield fail(_LIBRARY_SUBJECT, f"{required.name} is missing; pip install '{required}'")
    elif not required.specifier.contains(version, prereleases=True):
        yield fail(
            _LIBRARY_SUBJECT, f"{required.name} {version} will not do; pip install '{required}'"
        )


def _version(name: str, installed: Callable[[str], str]) -> str | None:
    try:
        return installed(name)
    except metadata.PackageNotFoundError:
        return None


# The state directory: ours alone, writable, in memory, with room.

_STATE_SUBJECT = "state"
_FOR_OTHERS = 0o077
_LEAST_FREE_BYTES = 16_000_000
_IN_MEMORY = ("tmpfs", "ramfs")


def state_directory_findings(directory: Path) -> Findings:
    """Whether the workers can agree there, and quickly."""
    place = _nearest(directory)
    refusal = _refusal(place)
    if refusal is not None:
        problem = f"STATE_DIR {directory} cannot be written ({refusal})"
        yield fail(_STATE_SUBJECT, f"{problem}; make it this user's, or name another one")
        return
    found = [*_medium(directory, place), *_room(directory, place), *_privacy(directory)]
    yield from or_else(found, ok(_STATE_SUBJECT, f"{directory}, in memory"))


def filesystem(path: Path, mounts: str) -> str:
    """The kind of file system that holds the path, by the text of /proc/self/mountinfo."""
    kinds = {}
    for line in mounts.splitlines():
        mount, _, rest = line.partition(" - ")
        kinds[Path(mount.split()[4])] = rest.split()[0]
    return next((kinds[each] for each in (path, *path.parents) if each in kinds), "unknown")


def _nearest(directory: Path) -> Path:
    """The directory, or the one that it would be made in."""
    return next(each for each in (directory, *directory.parents) if each.exists())


def _refusal(place: Path) -> str | None:
    try:
        # Asking for permissions is not enough: the file system may be read-only, or full.
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x" * 4096)
    except OSError as exc:
        return exc.strerror
    return None


def _medium(directory: Path, place: Path) -> Iterable[Finding]:
    kind = filesystem(place.resolve(), Path("/proc/self/mountinfo").read_text())
    if kind not in _IN_MEMORY:
        problem = f"{directory} is on a disk ({kind}), which costs each request milliseconds"
        yield warn(_STATE_SUBJECT, f"{problem}; leave STATE_DIR out, or name a folder in /dev/shm")


def _room(directory: Path, place: Path) -> Iterable[Finding]:
    about = os.statvfs(place)
    free = about.f_bavail * about.f_frsize
    if free < _LEAST_FREE_BYTES:
        yield warn(_STATE_SUBJECT, f"only {free / 1e6:.0f} MB are free in {directory}; make room")


def _privacy(directory: Path) -> Iterable[Finding]:
    if not directory.exists():
        return
    about = directory.stat()
    if about.st_uid != os.getuid():
        yield warn(
            _STATE_SUBJECT, f"{directory} is another user's; run `mes check` as the service's user"
        )
    elif about.st_mode & _FOR_OTHERS:
        yield warn(_STATE_SUBJECT, f"others can enter {directory}; chmod 700 {directory}")
