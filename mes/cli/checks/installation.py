"""The installation: Python and the libraries, in versions that MES was made for."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from importlib import metadata

from packaging.requirements import Requirement

from mes.cli.checks.finding import Finding, Findings, fail, ok, or_else, warn

_SUBJECT = "installation"
# The name in setup.cfg; `mes` in the package index is another project.
_DISTRIBUTION = "openbench-mes"


def findings() -> Findings:
    """Whatever is missing, too old or too new."""
    try:
        required = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        yield warn(_SUBJECT, "MES is run without being installed; pip install -e . in its folder")
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
        found, ok(_SUBJECT, f"{good} and {len(base) - 1} more libraries as required")
    )


def _library(required: Requirement, installed: Callable[[str], str]) -> Iterable[Finding]:
    version = _version(required.name, installed)
    if version is None:
        yield fail(_SUBJECT, f"{required.name} is missing; pip install '{required}'")
    elif not required.specifier.contains(version, prereleases=True):
        yield fail(_SUBJECT, f"{required.name} {version} will not do; pip install '{required}'")


def _version(name: str, installed: Callable[[str], str]) -> str | None:
    try:
        return installed(name)
    except metadata.PackageNotFoundError:
        return None
