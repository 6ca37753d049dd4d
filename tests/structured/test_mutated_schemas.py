"""Real schemas, mutilated: whatever is left of them is refused or judged by, and breaks nothing.

They are those of JSONSchemaBench, where that is at hand.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mes import structured
from mes.errors import SchemaInvalid, SchemaUnsafe
from tests.support.dataset import FOLDER

FILES = sorted(path for path in FOLDER.glob("*.json") if path.name != "manifest.json")
VERDICTS = {"valid", "not_json", "schema_violation", "truncated", "empty", "aborted"}

pytestmark = pytest.mark.skipif(not FILES, reason="JSONSchemaBench is not here")

# What a mutation may put in the place of something else.
ODDITIES: tuple[Any, ...] = (
    None, True, 0, -1, 2.5, 10**400, "", "(", "^(a+)+$", "(?=a)", "strin", [], {}, [[]], [{}],
    {"$ref": "#"}, {"$ref": "#/nowhere"}, {"$ref": "http://example.com/a.json"}, {"$id": "urn:a"},
    {"type": "strin"}, {"enum": []}, {"not": {}}, {"allOf": [{"$ref": "#"}]}, {"pattern": 5},
)  # fmt: skip

leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    leaves | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def containers(node: Any) -> Iterator[dict[str, Any] | list[Any]]:
    """All objects and lists of a document that hold anything."""
    if isinstance(node, dict | list) and node:
        yield node
        for inner in node.values() if isinstance(node, dict) else node:
            yield from containers(inner)


def mutate(document: dict[str, Any], dice: Random) -> None:
    """Delete, replace, copy to another place or rename one thing in the document."""
    places = list(containers(document))
    if not places:
        return
    place, other = dice.choice(places), dice.choice(places)
    key = dice.choice(list(place) if isinstance(place, dict) else range(len(place)))
    act = dice.choice(("delete", "replace", "copy", "rename"))
    if act == "delete":
        del place[key]
    elif act == "replace":
        place[key] = copy.deepcopy(dice.choice(ODDITIES))
    elif act == "copy":
        put(other, copy.deepcopy(place[key]), dice)
    else:
        put(place, place.pop(key), dice)


def put(place: dict[str, Any] | list[Any], value: Any, dice: Random) -> None:
    if isinstance(place, list):
        place.insert(dice.randrange(len(place) + 1), value)
    else:
        place[dice.choice((*place, "$ref", "items", "not", "anyOf", "$defs", "enum", "\0"))] = value


def checked(document: dict[str, Any]) -> structured.Schema | None:
    """The schema, or None where it is refused."""
    try:
        return structured.check_schema(document)
    except (SchemaInvalid, SchemaUnsafe):
        return None


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    path=st.sampled_from(FILES or [FOLDER]),
    dice=st.randoms(use_true_random=False),
    changes=st.integers(0, 8),
    value=values,
)
def test_a_mutated_schema_is_refused_or_judged_by(path, dice, changes, value):
    real = json.loads(path.read_bytes())
    document = real["schema"]
    for _ in range(changes):
        mutate(document, dice)
    schema = checked(document)
    if schema is None:
        return
    for answer in (value, *(test["data"] for test in real["tests"])):
        validation = schema.validate_answer(json.dumps(answer), "stop")
        assert validation.verdict in VERDICTS
        assert validation.valid == (not validation.errors)
