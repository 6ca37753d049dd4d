"""A second opinion: `jsonschema`, which shares no code with the judge, comes to the same verdicts.

It is asked about every instance of JSONSchemaBench, and about mutations of them.
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

# What a mutation puts in the place of something. No text ends with a newline: Python's `$`, which
# the oracle matches with, accepts one there, and JSON Schema's does not.
STRANGERS: list[Any] = [
    *(None, True, False, 0, 1, -1, 1.0, 1.5, 1e300, 10**20, -0.0),
    *("", "a", "x" * 300, "é", "😀", "not a uri", "http://a.b/c", "a@b.c", "@", "#/a", "^(a"),
    *("2020-01-01", "2020-13-01", "2020-01-01T00:00:00Z", "12:00:00Z", "12:00:00"),
    *("127.0.0.1", "256.1.1.1", "::1", "example.com", "-bad-", "P1D"),
    *([], {}, [1, 1], [1, True], [1, 1.0], [{}], {"": None}),
]

Path = tuple[str | int, ...]

pytestmark = pytest.mark.skipif(not cases(), reason="JSONSchemaBench is not at hand")


@cache
def judged() -> dict[str, tuple[Case, Schema, Validator]]:
    """The schemas that pass, with the judge of each and its oracle."""
    found = {}
    for case in cases():
        try:
            schema = structured.check_schema(case.schema)
        except MesError:
            continue
        found[case.name] = (case, schema, oracle(case.schema))
    return found


def verdicts(name: str, value: Any) -> tuple[bool, bool]:
    """Is it valid: in the judge's opinion, and in the oracle's?"""
    _, schema, second = judged()[name]
    return schema.validate_answer(json.dumps(value), "stop").valid, second.is_valid(value)


def test_both_judge_every_instance_alike():
    different = {
        f"{name}-{number}"
        for name, (case, _, _) in judged().items()
        for number, instance in enumerate(case.instances)
        if len(set(verdicts(name, instance.value))) > 1
    }
    assert not different


@st.composite
def mutations(draw: st.DrawFn) -> tuple[str, Any]:
    """A schema's name and an instance of it in which some nodes have been moved about."""
    name = draw(st.sampled_from([name for name, each in judged().items() if each[0].instances]))
    known = [instance.value for instance in judged()[name][0].instances]
    strangers = STRANGERS + [at(other, path) for other in known for path in paths(other)]
    value = copy.deepcopy(draw(st.sampled_from(known)))
    for _ in range(draw(st.integers(1, 4))):
        if places := paths(value):
            *above, step = draw(st.sampled_from(places))
            deed = draw(st.sampled_from(["delete", "replace", "duplicate", "add"]))
            stranger = copy.deepcopy(draw(st.sampled_from(strangers)))
            mutate(at(value, tuple(above)), step, deed, stranger)
    return name, value


def mutate(parent: Any, step: str | int, deed: str, stranger: Any) -> None:
    """Change what stands at that step of an object or array."""
    if deed == "delete":
        del parent[step]
    elif deed == "replace":
        parent[step] = stranger
    else:
        new = copy.deepcopy(parent[step]) if deed == "duplicate" else stranger
        if isinstance(parent, list):
            parent.insert(int(step), new)
        else:
            parent[f"{step}2"] = new


def paths(value: Any, path: Path = ()) -> list[Path]:
    """The way to each node below the value."""
    steps: Any = value if isinstance(value, dict) else ()
    steps = range(len(value)) if isinstance(value, list) else steps
    return [
        found for step in steps for found in ((*path, step), *paths(value[step], (*path, step)))
    ]


def at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


@settings(max_examples=500, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])  # fmt: skip
@given(mutations())
def test_both_judge_mutated_instances_alike(mutation: tuple[str, Any]):
    ours, theirs = verdicts(*mutation)
    assert ours == theirs
