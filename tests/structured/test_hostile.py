"""Hostile schemas: each is refused with its reason or judged by, at once, and reaches nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from mes import structured
from mes.errors import SchemaInvalid, SchemaUnsafe
from tests.structured.guarded import Experience, Guarded
from tests.structured.hostile import CASES
from tests.structured.hostile.case import INVALID, JUDGED, NOT_AS_FORMAT, UNSAFE

AT_MOST_MS = 50
MOST_ERRORS = 20
LONGEST_DETAIL = 200


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    running = Guarded()
    yield running
    running.close()


@pytest.fixture(scope="module")
def experience(guarded: Guarded) -> dict[str, Experience]:
    """What came of the cases, each tried once however many tests ask."""

    class Tried(dict[str, Experience]):
        def __missing__(self, name: str) -> Experience:
            return self.setdefault(name, guarded.experience(name))

    return Tried()


def named(*outcomes: str) -> list[str]:
    """The cases with any of these outcomes."""
    return [name for name, case in CASES.items() if {*outcomes} & {*case.outcomes}]


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_schema_is_refused_or_judged_by(name, experience):
    right = {JUDGED if each == NOT_AS_FORMAT else each for each in CASES[name].outcomes}
    found = experience[name]
    assert found.outcome in right
    if found.outcome in (INVALID, UNSAFE):
        assert found.pointer.startswith("/json_schema")
    elif CASES[name].verdict:
        assert found.verdict == CASES[name].verdict


@pytest.mark.parametrize("name", CASES)
def test_neither_screening_nor_judging_takes_long(name, experience):
    found = experience[name]
    assert found.outcome not in ("hangs", "dies")
    assert max(found.screening_ms, found.judging_ms) < AT_MOST_MS


@pytest.mark.parametrize("name", named(NOT_AS_FORMAT))
def test_the_runtime_never_sees_a_schema_that_its_converter_cannot_bear(name, experience):
    if experience[name].outcome == JUDGED:
        assert "grammar" not in experience[name].modes
    else:
        assert experience[name].outcome in CASES[name].outcomes


@pytest.mark.parametrize("name", named(JUDGED))
def test_the_errors_of_a_hostile_answer_are_few_and_short(name, experience):
    assert experience[name].errors <= MOST_ERRORS
    assert experience[name].longest_detail <= LONGEST_DETAIL


PLACES = {
    "the root": lambda reference: reference,
    "a property": lambda reference: {"properties": {"a": reference}},
    "a definition": lambda reference: {"$defs": {"a": reference}},
    "not": lambda reference: {"not": reference},
    "draft 4": lambda reference: {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "items": [reference],
    },
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("keyword", ["$ref", "$dynamicRef", "$schema", "$id"])
def test_nothing_is_fetched(keyword, place):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/schema.json"
        document = PLACES[place]({keyword: address})
        try:
            structured.check_schema(document).validate_answer('{"a": 1}', "stop")
        except (SchemaInvalid, SchemaUnsafe):
            pass  # it may say no; it may not look
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_no_file_is_read(tmp_path):
    secret = tmp_path / "schema.json"
    secret.write_text('{"type": "an unmistakable word"}')
    with pytest.raises(SchemaUnsafe) as refusal:
        structured.check_schema({"$ref": secret.as_uri()})
    assert "unmistakable" not in f"{refusal.value.detail} {refusal.value.mistakes}"
