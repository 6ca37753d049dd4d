"""Imports point one way: from the doors inwards, and never back up."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "mes"

# Which rooms of the service a room may import. `app` chooses the parts, so it may import all.
MAY_IMPORT = {
    "__main__": {"cli"},
    "api": {
        "config",
        "domain",
        "embedding",
        "errors",
        "event_loop",
        "inference",
        "metrics",
        "scheduling",
        "server",
        "shared",
        "streams",
        "strict_json",
        "structured",
    },
    "cli": {"config", "domain", "errors", "event_loop", "ollama", "streams", "strict_json"},
    "config": {"domain", "errors", "strict_json"},
    "domain": {"errors"},
    "embedded": set(),
    "embedding": {"config", "domain", "inference", "scheduling"},
    "errors": set(),
    "event_loop": set(),
    "inference": {"config", "domain", "scheduling", "structured"},
    "logs": set(),
    "metrics": {"config", "domain", "errors", "scheduling"},
    "ollama": {"config", "domain", "errors", "event_loop", "streams"},
    "scheduling": {"domain", "errors", "event_loop", "shared"},
    "server": {"config", "scheduling", "shared"},
    "shared": set(),
    "streams": {"errors", "event_loop"},
    "strict_json": set(),
    "structured": {"domain", "errors", "strict_json"},
}
FREE = {"app"}

# Libraries that some rooms keep to themselves. `runtime` is the service's client, `cli` is a client
# of the service, in another process.
KEPT_BY = {
    "requests": {"cli", "ollama"},
    "flask": {"api", "app"},
    "apispec": {"api"},
    "xllamacpp": {"embedded"},
    "click": {"cli"},
    "rich": {"cli"},
    "prometheus_client": {"metrics"},
    "greenlet": {"streams"},
    "jsonschema": {"structured"},
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
