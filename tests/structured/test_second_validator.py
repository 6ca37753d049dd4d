"""The second validator: its verdicts beside those of MES, from a process that cannot do harm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import pytest

from mes import structured
from mes.errors import ClientDisconnected, QueueFull
from mes.structured import Comparison, SecondValidator, second_validator
from mes.structured.second_validator import ProcessLimits
from tests.support.dataset import Case, cases
from tests.support.process import children, wait_until

HANGS = {"pattern": "^(a+)+$"}
HANGING = "a" * 60 + "!"
PATIENT = ProcessLimits(instance_seconds=0.3, wall_seconds=120)


class Client:
    """A client that can hang up."""

    def __init__(self) -> None:
        self.disconnected = False
        self._callbacks: list[Callable[[], None]] = []

    @contextmanager
    def on_disconnect(self, act: Callable[[], None]) -> Iterator[None]:
        self._callbacks.append(act)
        yield

    @property
    def is_served(self) -> bool:
        return bool(self._callbacks)

    def hang_up(self) -> None:
        self.disconnected = True
        for act in self._callbacks:
            act()


def compare(
    schema: Any,
    *instances: Any,
    second: SecondValidator | None = None,
    client: Client | None = None,
) -> list[Comparison]:
    second = second or SecondValidator(PATIENT)
    checked = structured.check_schema(schema)
    return structured.compare(checked, instances, second=second, client=client or Client())


def running(script: str, **limits: Any) -> SecondValidator:
    """A second validator whose process runs this script."""
    return SecondValidator(ProcessLimits(**limits), program=[sys.executable, "-c", script])


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    before = children(os.getpid())
    yield
    assert children(os.getpid()) == before


def test_both_judge_each_instance_and_say_where_it_is_wrong():
    schema = {"properties": {"ages": {"items": {"type": "integer"}}}, "required": ["name"]}
    good, bad = compare(schema, {"name": "x"}, {"name": "x", "ages": [1, "2"]})
    assert (good.mes.verdict, good.jsonschema.verdict, good.agree) == ("valid", "valid", True)
    assert (bad.mes.verdict, bad.jsonschema.verdict, bad.agree) == ("invalid", "invalid", True)
    for verdict in (bad.mes, bad.jsonschema):
        (error,) = verdict.errors
        assert (error.pointer, error.keyword) == ("/ages/1", "type")
        assert error.detail.startswith("the value is not of type")


def test_few_and_short_errors_are_listed():
    (found,) = compare({"items": {"enum": ["y" * 2000]}}, ["x" * 2000] * 9)
    for verdict in (found.mes, found.jsonschema):
        assert len(verdict.errors) == 5
        assert all(len(error.detail) <= 200 for error in verdict.errors)


DISAGREEMENTS = {
    "a multiple of a decimal fraction": ({"multipleOf": 0.01}, 4.02, "valid"),
    "a newline before the end": ({"pattern": "^a$"}, "a\n", "invalid"),
    "digits of another script": ({"pattern": r"^\d$"}, "٣", "invalid"),
    "an address without a name": ({"format": "email"}, "@", "invalid"),
}


@pytest.mark.parametrize(
    ("schema", "instance", "verdict_of_mes"), DISAGREEMENTS.values(), ids=DISAGREEMENTS
)
def test_a_disagreement_is_named(schema, instance, verdict_of_mes):
    (found,) = compare(schema, instance)
    assert found.agree is False
    assert found.mes.verdict == verdict_of_mes
    assert {found.mes.verdict, found.jsonschema.verdict} == {"valid", "invalid"}


def test_a_pattern_that_hangs_is_undecided_and_the_others_are_judged():
    found = compare(HANGS, "aaa", HANGING, "b", "aa")
    assert [each.jsonschema.verdict for each in found] == ["valid", "undecided", "invalid", "valid"]
    assert found[1].jsonschema.reason == "takes longer than 0.3 s of CPU time"
    assert found[1].mes.verdict == "invalid"
    assert [each.agree for each in found] == [True, None, True, True]


def test_beyond_the_cpu_time_of_all_nothing_is_valid_or_invalid():
    limits = ProcessLimits(instance_seconds=0.3, cpu_seconds=0.2, wall_seconds=120)
    found = compare(HANGS, "aaa", HANGING, "aa", second=SecondValidator(limits))
    assert [each.jsonschema.verdict for each in found] == ["valid", "undecided", "undecided"]
    assert found[2].jsonschema.reason == "not reached within 0.2 s of CPU time"


def test_a_pattern_that_python_cannot_compile_is_undecided():
    (found,) = compare({"pattern": r"^\p{L}$"}, "é")
    assert (found.mes.verdict, found.jsonschema.verdict) == ("valid", "undecided")
    assert r"bad escape \p" in str(found.jsonschema.reason)


def test_an_instance_that_takes_mes_too_long_is_undecided():
    twice = {"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}}
    deep: Any = {}
    for _ in range(40):
        deep = {"a": deep}
    (found,) = compare(twice, deep)
    assert (found.mes.verdict, found.jsonschema.verdict) == ("undecided", "undecided")
    assert found.mes.reason == "too large or too deeply nested to be validated against the schema"
    assert found.agree is None


@pytest.mark.parametrize("name", ["iri", "uri", "date-time", "hostname", "uuid", "duration"])
def test_formats_are_asserted_by_both(name):
    (found,) = compare({"format": name}, "not one ☃")
    assert (found.mes.verdict, found.jsonschema.verdict) == ("invalid", "invalid")


ONE_VERDICT = 'import os; print(\'{"verdict": "valid"}\', flush=True); '


def test_what_a_killed_process_has_undecided_is_undecided(caplog):
    second = running(f"{ONE_VERDICT} os.kill(os.getpid(), 9)")
    found = compare({}, 1, 2, 3, second=second)
    assert [each.jsonschema.verdict for each in found] == ["valid", "undecided", "undecided"]
    assert found[1].jsonschema.reason == "the process of the second validator ended with status -9"
    assert [each.mes.verdict for each in found] == ["valid"] * 3
    assert "second_validator_failed" in caplog.messages


def test_the_process_is_killed_at_the_limit():
    second = running(f"{ONE_VERDICT} import time; time.sleep(600)", wall_seconds=5)
    found = compare({}, 1, 2, second=second)
    assert [each.jsonschema.verdict for each in found] == ["valid", "undecided"]
    assert found[1].jsonschema.reason == "not reached within 5 s"


def test_the_process_ends_at_the_limit_also_without_its_parent():
    task = {"schema": HANGS, **asdict(ProcessLimits(instance_seconds=600, wall_seconds=1))}
    orphan = subprocess.Popen(second_validator._PROGRAM, stdin=subprocess.PIPE)
    assert orphan.stdin is not None
    orphan.stdin.write(json.dumps(task).encode() + b"\n" + json.dumps(HANGING).encode() + b"\n")
    orphan.stdin.flush()
    assert orphan.wait(60) == -signal.SIGALRM
    orphan.stdin.close()


def test_the_process_is_killed_when_the_client_hangs_up():
    client = Client()
    second = running("import time; time.sleep(600)", wall_seconds=60)
    hanging_up = threading.Thread(
        target=lambda: (wait_until(lambda: client.is_served), client.hang_up())
    )
    hanging_up.start()
    with pytest.raises(ClientDisconnected):
        compare({}, 1, second=second, client=client)
    hanging_up.join()


def test_few_processes_run_at_a_time():
    second = SecondValidator(
        ProcessLimits(wall_seconds=60),
        program=[sys.executable, "-c", "import time; time.sleep(600)"],
        processes=1,
        waiting=0,
    )
    client, ended = Client(), []

    def first() -> None:
        with pytest.raises(ClientDisconnected):
            compare({}, 1, second=second, client=client)
        ended.append(True)

    thread = threading.Thread(target=first)
    thread.start()
    wait_until(lambda: client.is_served)
    with pytest.raises(QueueFull):
        compare({}, 2, second=second)
    client.hang_up()
    thread.join()
    assert ended


def test_the_process_does_not_get_the_keys(monkeypatch):
    monkeypatch.setenv("MES_API_KEY", "a-secret")
    names = (
        "import json, os; print(json.dumps({'verdict': 'undecided', 'reason': str(os.environ)}))"
    )
    (found,) = compare({}, 1, second=running(names))
    assert found.jsonschema.reason is not None
    assert "a-secret" not in found.jsonschema.reason
    assert "PATH" in found.jsonschema.reason


@pytest.mark.skipif(not cases(), reason="JSONSchemaBench is not at hand")
@pytest.mark.parametrize("case", cases()[::12], ids=lambda case: case.name)
def test_both_agree_on_real_instances(case: Case):
    instances = [each.value for each in case.instances]
    found = compare(case.schema, *instances)
    assert [each.agree for each in found] == [True] * len(instances)
