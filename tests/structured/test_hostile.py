"""Hostile schemas: each is rejected or validates answers fast, and nothing is fetched."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from mes import structured
from mes.errors import SchemaInvalid, SchemaUnsafe
from tests.structured.guarded import DIES, FAST_MS, HANGS, CaseResult, GuardedProcess
from tests.structured.hostile import CASES
from tests.structured.hostile.case import INVALID, JUDGED, NOT_AS_FORMAT, UNSAFE

MOST_ERRORS = 20
LONGEST_DETAIL = 200


@pytest.fixture(scope="module")
def guarded_process() -> Iterator[GuardedProcess]:
    process = GuardedProcess()
    yield process
    process.close()


@pytest.fixture(scope="module")
def results(guarded_process: GuardedProcess) -> dict[str, CaseResult]:
    """The results of the cases by name; a case runs when a test first reads its result."""

    class Results(dict[str, CaseResult]):
        def __missing__(self, name: str) -> CaseResult:
            return self.setdefault(name, guarded_process.result(name))

    return Results()


def cases_with(*outcomes: str) -> list[str]:
    """Return the names of the cases for which one of these outcomes is right."""
    return [name for name, case in CASES.items() if {*outcomes} & {*case.outcomes}]


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_schema_is_rejected_or_validates_answers(name, results):
    right = {JUDGED if each == NOT_AS_FORMAT else each for each in CASES[name].outcomes}
    result = results[name]
    assert result.outcome in right
    if result.outcome in (INVALID, UNSAFE):
        assert result.pointer.startswith("/json_schema")
    elif CASES[name].verdict:
        assert result.verdict == CASES[name].verdict


@pytest.mark.parametrize("name", CASES)
def test_neither_checks_nor_validation_take_long(name, results):
    result = results[name]
    assert result.outcome not in (HANGS, DIES)
    assert max(result.check_ms, result.validation_ms) < FAST_MS


@pytest.mark.parametrize("name", cases_with(NOT_AS_FORMAT))
def test_the_runtime_never_gets_a_schema_that_harms_its_converter(name, results):
    if results[name].outcome == JUDGED:
        assert "grammar" not in results[name].modes or not results[name].grammar_is_harmful
    else:
        assert results[name].outcome in CASES[name].outcomes


@pytest.mark.parametrize("name", cases_with(JUDGED))
def test_the_errors_of_a_hostile_answer_are_few_and_short(name, results):
    assert results[name].errors <= MOST_ERRORS
    assert results[name].longest_detail <= LONGEST_DETAIL


def spin(name: str) -> CaseResult:
    while True:
        pass


def wait_for_ever(name: str) -> CaseResult:
    threading.Event().wait()
    return CaseResult(name)


def crash(name: str) -> CaseResult:
    os.kill(os.getpid(), signal.SIGKILL)
    return CaseResult(name)


@pytest.mark.parametrize(
    ("run", "limits", "outcome"),
    [
        (spin, {"cpu_seconds": 0}, HANGS),
        (wait_for_ever, {"wall_seconds": 0.1}, HANGS),
        (crash, {}, DIES),
    ],
)
def test_the_guarded_process_detects_a_hang_and_a_crash(
    run: Callable[[str], CaseResult], limits: dict[str, float], outcome: str
):
    process = GuardedProcess(run, **limits)
    try:
        assert process.result("first").outcome == outcome
        assert process.result("in the process that replaces it").outcome == outcome
    finally:
        process.close()


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
            pass  # a rejection is right as well, but only without a connection
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_no_file_is_read(tmp_path):
    secret = tmp_path / "schema.json"
    secret.write_text('{"type": "an unmistakable word"}')
    with pytest.raises(SchemaUnsafe) as rejection:
        structured.check_schema({"$ref": secret.as_uri()})
    assert "unmistakable" not in f"{rejection.value.detail} {rejection.value.mistakes}"
