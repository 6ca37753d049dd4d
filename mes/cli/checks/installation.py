"""Checks of the installation: libraries, state directory, settings and catalog."""

from __future__ import annotations

import difflib
import os
import platform
import tempfile
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from mes.cli.checks import Finding, Findings, fail, ok, or_else, warn
from mes.config.catalog import Catalog
from mes.config.private_files import NotPrivate, require_private_folder
from mes.config.settings import Settings, load_unchecked
from mes.config.settings_schema import DEVELOPMENT_KEY, NAMES, is_loopback

_LIBRARIES, _STATE = "installation", "state"

# The name in setup.cfg; `mes` in the package index is another project.
_DISTRIBUTION = "openbench-mes"

_GROUP_AND_OTHERS = 0o077
_MIN_FREE_BYTES = 16_000_000
_MEMORY_FILESYSTEMS = ("tmpfs", "ramfs")


def library_findings() -> Findings:
    """Yield the libraries that are missing, too old or too new."""
    try:
        required = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        yield warn(_LIBRARIES, "MES is not installed; pip install -e . in its folder")
        return
    yield from check_libraries(required, metadata.version)


def check_libraries(required: Iterable[str], installed: Callable[[str], str]) -> Findings:
    """Compare the requirements with the installed versions.

    Args:
        required: requirements as in `setup.cfg`; those of extras are ignored.
        installed: returns the version of a library, or raises PackageNotFoundError.
    """
    requirements = [
        each for each in map(Requirement, required) if not each.marker or each.marker.evaluate()
    ]
    problems = [found for each in requirements for found in _check_library(each, installed)]
    versions = f"Python {platform.python_version()}, gunicorn {_version('gunicorn', installed)}"
    yield from or_else(
        problems,
        ok(_LIBRARIES, f"{versions} and {len(requirements) - 1} more libraries as required"),
    )


def _check_library(required: Requirement, installed: Callable[[str], str]) -> Iterable[Finding]:
    version = _version(required.name, installed)
    if version is None:
        yield fail(_LIBRARIES, f"{required.name} is missing; pip install '{required}'")
    elif not required.specifier.contains(version, prereleases=True):
        problem = f"{required.name} {version} is not a supported version"
        yield fail(_LIBRARIES, f"{problem}; pip install '{required}'")


def _version(name: str, installed: Callable[[str], str]) -> str | None:
    try:
        return installed(name)
    except metadata.PackageNotFoundError:
        return None


def state_directory_findings(directory: Path) -> Findings:
    """Yield problems of STATE_DIR: not writable, on a disk, full, or open to other users."""
    existing = _nearest_existing(directory)
    unsafe = _unsafe_reason(directory)
    if unsafe is not None:
        yield fail(_STATE, f"STATE_DIR {directory} cannot be used: {unsafe}")
        return
    error = _write_error(existing)
    if error is not None:
        problem = f"STATE_DIR {directory} cannot be written ({error})"
        yield fail(_STATE, f"{problem}; make this user its owner, or set another folder")
        return
    problems = [
        *_check_filesystem(directory, existing),
        *_check_free_space(directory, existing),
        *_check_permissions(directory),
    ]
    yield from or_else(problems, ok(_STATE, f"{directory}, in memory"))


def filesystem_type(path: Path, mounts: str) -> str:
    """Return the type of the file system of `path`, such as `tmpfs`.

    Args:
        path: an absolute path without symbolic links.
        mounts: the text of `/proc/self/mountinfo`.
    """
    types = {}
    for line in mounts.splitlines():
        mount, _, rest = line.partition(" - ")
        types[Path(mount.split()[4])] = rest.split()[0]
    return next((types[each] for each in (path, *path.parents) if each in types), "unknown")


def _nearest_existing(directory: Path) -> Path:
    """Return the directory, or its nearest parent that exists."""
    return next(each for each in (directory, *directory.parents) if each.exists())


def _write_error(directory: Path) -> str | None:
    try:
        # The permissions are not enough: the file system may be read-only or full.
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"x" * 4096)
    except OSError as exc:
        return exc.strerror
    return None


def _unsafe_reason(directory: Path) -> str | None:
    """Return why MES would not start with this directory; root may check another user's."""
    if not os.path.lexists(directory) or _is_checked_by_root(directory):
        return None
    try:
        require_private_folder(directory)
    except NotPrivate as exc:
        return exc.strerror
    return None


def _is_checked_by_root(directory: Path) -> bool:
    return os.geteuid() == 0 and not directory.is_symlink() and directory.stat().st_uid != 0


def _check_filesystem(directory: Path, existing: Path) -> Iterable[Finding]:
    kind = filesystem_type(existing.resolve(), Path("/proc/self/mountinfo").read_text())
    if kind not in _MEMORY_FILESYSTEMS:
        problem = f"STATE_DIR {directory} is on a disk ({kind}), which adds milliseconds a request"
        yield warn(_STATE, f"{problem}; unset STATE_DIR, or set a folder in /dev/shm")


def _check_free_space(directory: Path, existing: Path) -> Iterable[Finding]:
    stats = os.statvfs(existing)
    free = stats.f_bavail * stats.f_frsize
    if free < _MIN_FREE_BYTES:
        problem = f"STATE_DIR {directory} has only {free / 1e6:.0f} MB free"
        yield warn(_STATE, f"{problem}; free at least {_MIN_FREE_BYTES / 1e6:.0f} MB")


def _check_permissions(directory: Path) -> Iterable[Finding]:
    if not directory.exists():
        return
    stats = directory.stat()
    if stats.st_uid != os.getuid():
        problem = f"STATE_DIR {directory} belongs to another user"
        yield warn(_STATE, f"{problem}; run `mes check` as the user of the service")
    elif stats.st_mode & _GROUP_AND_OTHERS:
        yield warn(_STATE, f"other users can access STATE_DIR {directory}; chmod 700 {directory}")


def settings_findings(settings: Settings) -> Findings:
    """Yield warnings about settings that are valid but risky, or probably misspelled."""
    problems = [*_development_key(settings), *_dotenv_permissions(), *_misspelled_names()]
    key = "the development key" if settings.api_key == DEVELOPMENT_KEY else "its own key"
    yield from or_else(problems, ok("settings", f"listens on {settings.bind} with {key}"))


def catalog_findings(catalog: Catalog, path: Path) -> Findings:
    """Yield how many models of the catalog are enabled."""
    enabled = len(catalog.enabled)
    if enabled:
        yield ok("catalog", f"{path}: {enabled} of {len(catalog.models)} models enabled")
    else:
        yield warn("catalog", f"{path}: no model is enabled, so no request can run; enable one")


def _development_key(settings: Settings) -> list[Finding]:
    if settings.api_key != DEVELOPMENT_KEY or is_loopback(settings.host):
        return []
    problem = f"every client that reaches {settings.bind} can use the development key"
    return [warn("settings", f"{problem}; set MES_API_KEY, unless this is intended")]


def _misspelled_names() -> list[Finding]:
    """Find names in `.env` that resemble a setting.

    The environment is not searched, because it has the variables of other programs.
    """
    unknown = {name for name in load_unchecked(environ={}) if name not in NAMES}
    return [
        warn("settings", f"{name} in .env is not a setting; did you mean {close[0]}?")
        for name in sorted(unknown)
        if (close := difflib.get_close_matches(name, NAMES, n=1, cutoff=0.85))
    ]


def _dotenv_permissions() -> list[Finding]:
    path = Path(".env")
    if not path.is_file() or not path.stat().st_mode & _GROUP_AND_OTHERS:
        return []
    if "MES_API_KEY" not in path.read_text(errors="replace"):
        return []
    return [warn("settings", f"other users can read the key in {path}; chmod 600 {path}")]
