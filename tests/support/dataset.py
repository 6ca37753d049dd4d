"""JSONSchemaBench: real-world schemas with valid and invalid instances, where the data is at hand.

It is third-party data and no part of the project. It is looked for beside the project, or in the
folder that MES_TEST_DATA names.
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
    """A value, and whether the data set says that it fits its schema."""

    value: Any
    is_valid: bool


@dataclass(frozen=True)
class Case:
    """One schema with its instances."""

    name: str
    subset: str
    schema: dict[str, Any]
    instances: tuple[Instance, ...]


@cache
def cases() -> tuple[Case, ...]:
    """All schemas, by name; none where there is no data."""
    return tuple(_case(path) for path in sorted(FOLDER.glob("*__*.json")))


def _case(path: Path) -> Case:
    document = json.loads(path.read_text(encoding="utf-8"))
    instances = tuple(Instance(test["data"], test["valid"]) for test in document["tests"])
    return Case(path.stem, document["subset"], document["schema"], instances)
