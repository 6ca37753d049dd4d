"""Mutated schemas of JSONSchemaBench: each is rejected or validates answers, without a crash."""

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

pytestmark = pytest.mark.skipif(not FILES, reason="no JSONSchemaBench; see MES_TEST_DATA")

# Values that a mutation inserts.
INSERTED_VALUES: tuple[Any, ...] = (
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
    """Yield all objects and lists of a document that are not empty."""
    if isinstance(node, dict | list) and node:
        yield node
        for inner in node.values() if isinstance(node, dict) else node:
            yield from containers(inner)


def mutate(document: dict[str, Any], random: Random) -> None:
    """Delete, replace, copy or rename one member or item of the document."""
    found = list(containers(document))
    if not found:
        return
    container, other = random.choice(found), random.choice(found)
    key = random.choice(list(container) if isinstance(container, dict) else range(len(container)))
    operation = random.choice(("delete", "replace", "copy", "rename"))
    if operation == "delete":
        del container[key]
    elif operation == "replace":
        container[key] = copy.deepcopy(random.choice(INSERTED_VALUES))
    elif operation == "copy":
        put(other, copy.deepcopy(container[key]), random)
    else:
        put(container, container.pop(key), random)


def put(container: dict[str, Any] | list[Any], value: Any, random: Random) -> None:
    if isinstance(container, list):
        container.insert(random.randrange(len(container) + 1), value)
    else:
        names = (*container, "$ref", "items", "not", "anyOf", "$defs", "enum", "\0")
        container[random.choice(names)] = value


def checked(document: dict[str, Any]) -> structured.Schema | None:
    """Return the schema, or None if it is rejected."""
    try:
        return structured.check_schema(document)
    except (SchemaInvalid, SchemaUnsafe):
        return None


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    path=st.sampled_from(FILES or [FOLDER]),
    random=st.randoms(use_true_random=False),
    changes=st.integers(0, 8),
    value=values,
)
def test_a_mutated_schema_is_rejected_or_validates_answers(path, random, changes, value):
    real = json.loads(path.read_bytes())
    document = real["schema"]
    for _ in range(changes):
        mutate(document, random)
    schema = checked(document)
    if schema is None:
        return
    for answer in (value, *(test["data"] for test in real["tests"])):
        validation = schema.validate_answer(json.dumps(answer), "stop")
        assert validation.verdict in VERDICTS
        assert validation.valid == (not validation.errors)
