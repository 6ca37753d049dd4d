"""Real-world schemas: each instance of JSONSchemaBench gets the verdict that its label requires.

The fake runtime answers each inference with the instance.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mes.app import create_app
from mes.config import settings
from mes.domain import PulledModel
from tests.fakes import DIGEST, FakeRuntime, eventually
from tests.support.dataset import Case, Instance, cases

KEY = "a-key-for-tests"
MODEL = "echo:1b"

Echo = Callable[[str, dict[str, Any]], Any]

# `uuid` is a format since 2019-09. These schemas declare draft 4, where an unknown format asserts
# nothing, but the labels were made with all known formats asserted.
DISPUTED = {
    ("Github_easy__o73993", 1),
    ("Github_easy__o73993", 3),
    ("Github_easy__o73993", 4),
}

pytestmark = pytest.mark.skipif(not cases(), reason="no JSONSchemaBench; see MES_TEST_DATA")

INSTANCES = [
    pytest.param(case, instance, (case.name, number) in DISPUTED, id=f"{case.name}-{number}")
    for case in cases()
    for number, instance in enumerate(case.instances)
]


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Echo]:
    """Return the response to an inference with one attempt, in which the model answers `text`."""
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
        # `json=` would let Flask sort the keys.
        return app.test_client().post("/v1/inference", data=json.dumps(document), headers=headers)

    yield ask
    app.extensions["mes"].close()


@pytest.mark.parametrize(("case", "instance", "is_disputed"), INSTANCES)
def test_an_instance_gets_the_verdict_of_its_label(
    case: Case, instance: Instance, is_disputed: bool, echo: Echo
):
    response = echo(json.dumps(instance.value), case.schema)
    answer = response.json
    expected = "valid" if instance.is_valid != is_disputed else "schema_violation"
    assert response.status_code == 200, answer
    assert answer["structured"]["verdict"] == expected, answer["structured"]["errors"]
    assert answer["success"] is (expected == "valid")
    if answer["success"]:
        assert canonical_text(answer["parsed"]) == canonical_text(instance.value)
    else:
        assert answer["parsed"] is None
        assert 1 <= len(answer["structured"]["errors"]) <= 20


def test_no_schema_is_rejected(echo: Echo):
    rejected = [case.name for case in cases() if "structured" not in echo("null", case.schema).json]
    assert rejected == []


def canonical_text(value: Any) -> str:
    """Return a text that differs for 1, 1.0 and true but not for another order of keys."""
    return json.dumps(value, sort_keys=True)
