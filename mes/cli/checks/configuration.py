"""The configuration: the settings, and the catalog they name, each on its own."""

from __future__ import annotations

import difflib
from pathlib import Path

from mes.cli.checks import Finding, Findings, ok, or_else, warn
from mes.config.catalog import Catalog
from mes.config.settings import Settings, load_unchecked
from mes.config.settings_schema import DEVELOPMENT_KEY, NAMES, is_loopback

_FOR_OTHERS = 0o077


def settings(current: Settings) -> Findings:
    """What a start would accept, and yet somebody should look at."""
    found = [*_development_key(current), *_dotenv(Path(".env")), *_misspelt()]
    yield from or_else(found, ok("settings", f"listens on {current.bind}, {_whose_key(current)}"))


def catalog(current: Catalog, path: Path) -> Findings:
    """How much of the catalog may be run."""
    enabled = len(current.enabled)
    if enabled:
        yield ok("catalog", f"{path}: {enabled} of {len(current.models)} models enabled")
    else:
        yield warn("catalog", f"{path}: no model is enabled, so nothing can be run; enable one")


def _whose_key(current: Settings) -> str:
    return "the development key" if current.api_key == DEVELOPMENT_KEY else "a key of its own"


def _development_key(current: Settings) -> list[Finding]:
    if current.api_key != DEVELOPMENT_KEY or is_loopback(current.host):
        return []
    problem = f"anybody who reaches {current.bind} may enter with the development key"
    return [warn("settings", f"{problem}; set MES_API_KEY, unless that is meant")]


def _misspelt() -> list[Finding]:
    """Names in `.env` that are nearly ours; the environment is full of other programs' names."""
    strange = {name for name in load_unchecked(environ={}) if name not in NAMES}
    return [
        warn("settings", f"{name} in .env is read by nobody; did you mean {close[0]}?")
        for name in sorted(strange)
        if (close := difflib.get_close_matches(name, NAMES, n=1, cutoff=0.85))
    ]


def _dotenv(path: Path) -> list[Finding]:
    if not path.is_file() or not path.stat().st_mode & _FOR_OTHERS:
        return []
    if "MES_API_KEY" not in path.read_text(errors="replace"):
        return []
    return [warn("settings", f"others can read the key in {path}; chmod 600 {path}")]
