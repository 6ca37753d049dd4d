"""Checks of the configuration: the settings and the catalog, each on its own."""

from __future__ import annotations

import difflib
from pathlib import Path

from mes.cli.checks import Finding, Findings, ok, or_else, warn
from mes.config.catalog import Catalog
from mes.config.settings import Settings, load_unchecked
from mes.config.settings_schema import DEVELOPMENT_KEY, NAMES, is_loopback

_GROUP_AND_OTHERS = 0o077


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
