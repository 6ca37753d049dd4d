"""Differential tests: the validator of MES and `jsonschema`, its oracle, return the same verdicts.

They validate each instance of JSONSchemaBench and mutations of the instances.
"""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema.protocols import Validator

from mes import structured
from mes.errors import MesError
from mes.structured import Schema
from tests.support.dataset import Case, cases
from tests.support.oracle import oracle

# Values that a mutation inserts. No text ends with a newline: the oracle uses Python's `re`, whose
# `$` matches before a final newline, and `$` of JSON Schema does not.
INSERTED_VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 1.0, 1.5, 1e300, 10**20, -0.0),
    *("", "a", "x" * 300, "é", "😀", "not a uri", "http://a.b/c", "a@b.c", "@", "#/a", "^(a"),
    *("2020-01-01", "2020-13-01", "2020-01-01T00:00:00Z", "12:00:00Z", "12:00:00"),
    *("127.0.0.1", "256.1.1.1", "::1", "example.com", "-bad-", "P1D"),
    *([], {}, [1, 1], [1, True], [1, 1.0], [{}], {"": None}),
]

Path = tuple[str | int, ...]

pytestmark = pytest.mark.skipif(not cases(), reason="no JSONSchemaBench; see MES_TEST_DATA")


@cache
def accepted() -> dict[str, tuple[Case, Schema, Validator]]:
    """Return the accepted schemas by name: the case, the schema of MES and the oracle."""
    found = {}
    for case in cases():
        try:
            schema = structured.check_schema(case.schema)
        except MesError:
            continue
        found[case.name] = (case, schema, oracle(case.schema))
    return found


def verdicts(name: str, value: Any) -> tuple[bool, bool]:
    """Return whether the value is valid for MES, and whether it is for the oracle."""
    _, schema, validator = accepted()[name]
    return schema.validate_answer(json.dumps(value), "stop").valid, validator.is_valid(value)


def test_both_return_the_same_verdict_on_each_instance():
    different = {
        f"{name}-{number}"
        for name, (case, _, _) in accepted().items()
        for number, instance in enumerate(case.instances)
        if len(set(verdicts(name, instance.value))) > 1
    }
    assert not different


@st.composite
def mutations(draw: st.DrawFn) -> tuple[str, Any]:
    """Draw the name of a schema and a mutated instance of it."""
    name = draw(st.sampled_from([name for name, each in accepted().items() if each[0].instances]))
    known = [instance.value for instance in accepted()[name][0].instances]
    values = INSERTED_VALUES + [at(other, path) for other in known for path in paths(other)]
    value = copy.deepcopy(draw(st.sampled_from(known)))
    for _ in range(draw(st.integers(1, 4))):
        if places := paths(value):
            *above, step = draw(st.sampled_from(places))
            operation = draw(st.sampled_from(["delete", "replace", "duplicate", "add"]))
            inserted = copy.deepcopy(draw(st.sampled_from(values)))
            mutate(at(value, tuple(above)), step, operation, inserted)
    return name, value


def mutate(parent: Any, step: str | int, operation: str, inserted: Any) -> None:
    """Change the member or item of `parent` at that step."""
    if operation == "delete":
        del parent[step]
    elif operation == "replace":
        parent[step] = inserted
    else:
        new = copy.deepcopy(parent[step]) if operation == "duplicate" else inserted
        if isinstance(parent, list):
            parent.insert(int(step), new)
        else:
            parent[f"{step}2"] = new


def paths(value: Any, path: Path = ()) -> list[Path]:
    """Return the path of each value below `value`."""
    steps: Any = value if isinstance(value, dict) else ()
    steps = range(len(value)) if isinstance(value, list) else steps
    return [
        found for step in steps for found in ((*path, step), *paths(value[step], (*path, step)))
    ]


def at(value: Any, path: Path) -> Any:
    """Return the value at that path."""
    for step in path:
        value = value[step]
    return value


@settings(max_examples=500, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])  # fmt: skip
@given(mutations())
def test_both_return_the_same_verdict_on_mutated_instances(mutation: tuple[str, Any]):
    ours, theirs = verdicts(*mutation)
    assert ours == theirs
