"""Imports point one way: rooms by a table, files without a circle, libraries in their rooms."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
ROOT = PROJECT / "mes"

# The rooms that each room may import. Files at the top of mes/ are rooms of their own.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "logs": set(),
    "strict_json": set(),
    "event_loop": set(),
    "domain": {"errors"},
    "config": {"domain", "errors", "strict_json"},
    "streams": {"errors", "event_loop"},
    "ollama": {"config", "domain", "errors", "event_loop", "streams"},
    "structured": {"domain", "errors", "strict_json"},
    "scheduling": {"config", "domain", "errors", "event_loop"},
    "inference": {"config", "domain", "errors", "scheduling", "structured"},
    "embedding": {"config", "domain", "inference", "scheduling"},
    "metrics": {"config", "domain", "errors", "scheduling"},
    "server": {"config", "scheduling"},
    "api": {
        *("config", "domain", "embedding", "errors", "event_loop", "inference", "metrics"),
        *("scheduling", "server", "streams", "strict_json", "structured"),
    },
    "app": {
        *("api", "config", "domain", "event_loop", "logs", "metrics", "ollama", "scheduling"),
        *("streams", "structured"),
    },
    "cli": {"config", "domain", "errors", "event_loop", "ollama", "streams", "strict_json"},
    "serve": {"app", "logs", "ollama", "server"},
    "__main__": {"cli"},
    "embedded": {"config", "server"},
}

# Libraries that some rooms keep to themselves. `redis` and `sqlalchemy` have no room yet.
KEPT_BY: dict[str, set[str]] = {
    "apispec": {"api"},
    "click": {"cli"},
    "flask": {"api", "app"},
    "greenlet": {"streams"},
    "gunicorn": {"serve", "server"},
    "jsonschema": {"structured"},
    "jsonschema_rs": {"structured"},
    "cachetools": {"config", "scheduling", "structured"},
    "marshmallow": {"api", "config"},
    "prometheus_client": {"metrics"},
    "redis": set(),
    "requests": {"cli", "ollama"},
    "rich": {"cli"},
    "sqlalchemy": set(),
    "urllib3": {"cli", "ollama"},
    "xllamacpp": {"embedded"},
}

# Folders inside a room that the rest of the room must not import.
INNER = {"mes.api.openai": "mes.api", "mes.api.openapi": "mes.api"}


def module_of(path: Path) -> str:
    """Return the dotted name of a file of the project."""
    name = ".".join(path.relative_to(PROJECT).with_suffix("").parts)
    return name.removesuffix(".__init__")


MODULES = {module_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def room_of(module: str) -> str:
    """Return the folder, or the file at the top of mes/, that a module belongs to."""
    return ([*module.split("."), ""])[1]


def imported(module: str) -> set[str]:
    """Return the modules that a file imports: files of ours, and names of libraries."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in names}
    return found


IMPORTS = {module: imported(module) for module in MODULES}


@pytest.mark.parametrize("module", [module for module in MODULES if module != "mes"])
def test_a_room_imports_only_what_lies_further_in(module: str):
    rooms = {room_of(name) for name in IMPORTS[module] if name in MODULES}
    assert rooms - {""} <= MAY_IMPORT[room_of(module)] | {room_of(module)}


def test_the_table_of_rooms_allows_nothing_that_is_not_used():
    used: dict[str, set[str]] = {room: set() for room in MAY_IMPORT}
    for module in MODULES:
        if module != "mes":
            used[room_of(module)] |= {room_of(name) for name in IMPORTS[module] & set(MODULES)}
    assert {room: names - {room, ""} for room, names in used.items()} == MAY_IMPORT


def test_no_files_import_each_other_in_a_circle():
    files = {module: IMPORTS[module] & set(MODULES) - {module} for module in MODULES}
    try:
        TopologicalSorter(files).prepare()
    except CycleError as exc:
        pytest.fail(" -> ".join(exc.args[1]))


@pytest.mark.parametrize("inner", INNER)
def test_the_rest_of_a_room_does_not_import_its_inner_folder(inner: str):
    outside = (name for name in MODULES if name.startswith(f"{INNER[inner]}."))
    users = {
        module
        for module in outside
        if not module.startswith(tuple(INNER))
        and any(name.startswith(inner) for name in IMPORTS[module])
    }
    assert users == set()


@pytest.mark.parametrize("library", KEPT_BY)
def test_a_library_stays_in_its_rooms(library: str):
    users = {
        room_of(module)
        for module, names in IMPORTS.items()
        if library in {name.split(".")[0] for name in names}
    }
    assert users == KEPT_BY[library]


def test_the_documented_table_of_rooms_is_this_one():
    text = (PROJECT / "docs" / "architecture.md").read_text()
    rows = re.findall(
        r"^\| `mes/(\w+)(?:/|\.py)` \|[^|]*\| ([^|]*) \| ([^|]*) \|$", text, re.MULTILINE
    )
    documented = {room: (names(rooms), names(libraries)) for room, rooms, libraries in rows}
    assert documented == {
        room: (rooms, {library for library in KEPT_BY if room in KEPT_BY[library]})
        for room, rooms in MAY_IMPORT.items()
        if room != "__main__"
    }


def names(cell: str) -> set[str]:
    """Return the names in a cell of the table, in which "-" stands for none."""
    return set(re.findall(r"\w+", cell))
