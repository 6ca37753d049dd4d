"""Real-world schemas: every instance of JSONSchemaBench gets the verdict that it is labelled with.

The runtime echoes: its answer to the inference is the instance.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mes import settings
from mes.app import create_app
from mes.domain import PulledModel
from tests.fakes import DIGEST, FakeRuntime, eventually
from tests.support.dataset import Case, Instance, cases

KEY = "a-key-for-tests"
MODEL = "echo:1b"

Echo = Callable[[str, dict[str, Any]], Any]

# `uuid` is a format from 2019-09 on. These schemas say that they are draft 4, where it is a name
# like any other and asserts nothing; whoever labelled them asserted all formats they knew.
DISPUTED = {
    ("Github_easy__o73993", 1),
    ("Github_easy__o73993", 3),
    ("Github_easy__o73993", 4),
}

# What screening does not let pass, and why.
REFUSED = {"JsonSchemaStore__appsemblerc.schema": "look-around"}

pytestmark = pytest.mark.skipif(not cases(), reason="JSONSchemaBench is not at hand")

INSTANCES = [
    pytest.param(case, instance, (case.name, number) in DISPUTED, id=f"{case.name}-{number}")
    for case in cases()
    if case.name not in REFUSED
    for number, instance in enumerate(case.instances)
]


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Echo]:
    """`echo(text, schema)`: the response to one attempt whose answer is that text."""
    folder, runtime = tmp_path_factory.mktemp("echo"), FakeRuntime()
    runtime.on_disk = [PulledModel(MODEL, DIGEST, 10, "Q4_0", "1B")]
    catalog = folder / "models.json"
    catalog.write_text(json.dumps({"models": {MODEL: {}}}))
    environment = {
        "MES_API_KEY": KEY,
        "MODELS_CONFIG_PATH": str(catalog),
        "STATE_DIR": str(folder / "state"),
    }
    app = create_app(settings.load(environment, dotenv=None), runtime=runtime)
    eventually(lambda: app.extensions["mes"].runtime_status.current().seen_at)

    def ask(text: str, schema: dict[str, Any]) -> Any:
        runtime.answers = lambda prompt: text
        document = {"model_id": MODEL, "prompt": "?", "json_schema": schema, "max_attempts": 1}
        headers = {"X-API-Key": KEY, "Content-Type": "application/json"}
        # Not json=: Flask's client would sort the keys.
        return app.test_client().post("/v1/inference", data=json.dumps(document), headers=headers)

    yield ask
    app.extensions["mes"].close()


@pytest.mark.parametrize(("case", "instance", "is_disputed"), INSTANCES)
def test_an_instance_is_judged_as_it_is_labelled(
    case: Case, instance: Instance, is_disputed: bool, echo: Echo
):
    response = echo(json.dumps(instance.value), case.schema)
    told = response.json
    expected = "valid" if instance.is_valid != is_disputed else "schema_violation"
    assert response.status_code == 200, told
    assert told["structured"]["verdict"] == expected, told["structured"]["errors"]
    assert told["success"] is (expected == "valid")
    if told["success"]:
        assert spelled(told["parsed"]) == spelled(instance.value)
    else:
        assert told["parsed"] is None
        assert 1 <= len(told["structured"]["errors"]) <= 20


def test_a_schema_is_refused_only_for_look_around(echo: Echo):
    reasons = {}
    for case in cases():
        told = echo("null", case.schema).json
        if "structured" not in told:
            reasons[case.name] = told["detail"]
    assert reasons.keys() == REFUSED.keys()
    assert all(REFUSED[name] in reason for name, reason in reasons.items())
    assert len(reasons) <= 0.02 * len(cases())


def spelled(value: Any) -> str:
    """What tells 1 from 1.0 and from true, but not one order of keys from another."""
    return json.dumps(value, sort_keys=True)
