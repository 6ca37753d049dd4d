"""JSONSchemaBench: real-world schemas with valid and invalid instances.

The data is from a third party and not part of the project. It is read from the folder that
MES_TEST_DATA names, by default from a folder beside the project.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.process import ROOT

FOLDER = Path(os.environ.get("MES_TEST_DATA") or ROOT.parent / "shared/data") / "jsonschemabench"


@dataclass(frozen=True)
class Instance:
    """A value and its label: whether the data set calls it valid."""

    value: Any
    is_valid: bool


@dataclass(frozen=True)
class Case:
    """A schema with its instances."""

    name: str
    subset: str
    schema: dict[str, Any]
    instances: tuple[Instance, ...]


@cache
def cases() -> tuple[Case, ...]:
    """Return all schemas in the order of their names; none if the data is absent."""
    return tuple(_read_case(path) for path in sorted(FOLDER.glob("*__*.json")))


def _read_case(path: Path) -> Case:
    document = json.loads(path.read_text(encoding="utf-8"))
    instances = tuple(Instance(test["data"], test["valid"]) for test in document["tests"])
    return Case(path.stem, document["subset"], document["schema"], instances)
