"""Imports point one way: from the doors inwards, and never back up."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "mes"

# Which rooms of the service a room may import. `app` chooses the parts, so it may import all.
MAY_IMPORT = {
    "errors": set(),
    "domain": set(),
    "watch": set(),
    "strictjson": set(),
    "settings_schema": set(),
    "settings": {"settings_schema"},
    "logs": set(),
    "reread": {"errors"},
    "keys": set(),
    "host": set(),
    "keysfile": {"errors", "keys", "reread", "strictjson"},
    "keysmith": {"errors", "keys", "keysfile"},
    "attempts": set(),
    "problem": set(),
    "server": {"catalog", "keysfile", "problem", "scheduling", "settings"},
    "catalog_schema": {"domain", "errors"},
    "catalog": {"catalog_schema", "domain", "errors", "reread", "strictjson"},
    "scheduling": {"domain", "errors", "watch"},
    "relay": {"watch"},
    "runtime": {"capabilities", "domain", "errors", "relay", "watch"},
    "structured": {"domain", "errors", "strictjson"},
    "stream": {"errors"},
    "capabilities": {"domain", "errors"},
    "provenance": {"domain", "scheduling"},
    "embedding": {"capabilities", "catalog", "domain", "provenance", "scheduling"},
    "inference": {"capabilities", "catalog", "domain", "provenance", "scheduling", "structured"},
    "metrics": {"catalog", "domain", "errors", "host", "scheduling"},
    "api": {
        "attempts",
        "catalog",
        "domain",
        "embedding",
        "errors",
        "server",
        "host",
        "inference",
        "keys",
        "metrics",
        "problem",
        "relay",
        "scheduling",
        "settings",
        "stream",
        "strictjson",
        "structured",
        "watch",
    },
    "serve": {"settings"},
    # A program of its own that speaks HTTP to the service; only `mes check` reads what it reads.
    "cli": {
        "catalog",
        "domain",
        "errors",
        "keys",
        "keysfile",
        "keysmith",
        "relay",
        "runtime",
        "settings",
        "settings_schema",
        "strictjson",
        "watch",
    },
    "__main__": {"cli"},
    "embedded": set(),
}
FREE = {"app"}

# Libraries that some rooms keep to themselves. `runtime` is the service's client, `cli` is a client
# of the service, in another process.
KEPT_BY = {
    "requests": {"runtime", "cli"},
    "flask": {"api", "app"},
    "apispec": {"api"},
    "xllamacpp": {"embedded"},
    "click": {"cli"},
    "rich": {"cli"},
    "prometheus_client": {"metrics"},
    "greenlet": {"stream"},
}


def rooms() -> list[tuple[str, Path]]:
    return [
        (path.relative_to(ROOT).parts[0].removesuffix(".py"), path)
        for path in sorted(ROOT.rglob("*.py"))
        if path != ROOT / "__init__.py"
    ]


def imported(path: Path) -> set[str]:
    """The modules that a file imports, by their absolute names."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module == "mes":
            names |= {f"mes.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")
    return names


@pytest.mark.parametrize(
    ("room", "path"), rooms(), ids=lambda value: str(value).removeprefix(f"{ROOT}/")
)
def test_a_room_imports_only_what_lies_further_in(room: str, path: Path):
    ours = {name.split(".")[1] for name in imported(path) if name.startswith("mes.")}
    allowed = MAY_IMPORT.get(room, set()) | {room, "__version__"}
    assert room in FREE or ours <= allowed


@pytest.mark.parametrize("library", KEPT_BY)
def test_a_library_stays_in_its_rooms(library: str):
    users = {room for room, path in rooms() if library in {n.split(".")[0] for n in imported(path)}}
    assert users == KEPT_BY[library]
