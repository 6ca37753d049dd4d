"""Requests with keys of each scope, and with wrong keys."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from mes.app import create_app
from mes.config import api_keys_admin, settings
from mes.errors import RuntimeUnavailable
from tests.fakes import FakeRuntime, eventually


@pytest.fixture
def keys_path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def keys(keys_path: Path) -> dict[str, str]:
    """Create a key for each scope; return them by scope."""
    scopes = ("inference", "admin", "metrics")
    return {
        scope: api_keys_admin.create_key(keys_path, name=f"for-{scope}", scopes=[scope])
        for scope in scopes
    }


@pytest.fixture
def environment(catalog_path: Path, tmp_path: Path, keys_path: Path) -> dict[str, str]:
    return {
        "MES_API_KEYS_FILE": str(keys_path),
        "MODELS_CONFIG_PATH": str(catalog_path),
        "STATE_DIR": str(tmp_path / "state"),
    }


@pytest.fixture
def app(environment: dict[str, str], keys: dict[str, str], runtime: FakeRuntime) -> Iterator[Flask]:
    app = create_app(settings.load(environment, dotenv=None), runtime=runtime)
    yield app
    app.extensions["mes"].close()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_loading_and_unloading_need_an_admin_key(client, keys):
    for action in ("load", "unload"):
        path = f"/v1/models/smollm2:135m/{action}"
        refused = client.post(path, headers=bearer(keys["inference"]))
        assert (refused.status_code, refused.get_json()["code"]) == (403, "forbidden")
        detail = "this needs a key with the scope admin; the key for-inference has: inference"
        assert refused.get_json()["detail"] == detail
        assert client.post(path, headers=bearer(keys["admin"])).status_code == 200


def test_ready_gives_reasons_with_a_key_of_the_scope_inference(client, keys, runtime):
    runtime.down = RuntimeUnavailable("http://ollama:11434 cannot be reached")
    eventually(lambda: client.get("/ready").status_code == 503)
    reasons = {
        scope: "11434" in client.get("/ready", headers=bearer(key)).text
        for scope, key in keys.items()
    }
    assert reasons == {"inference": True, "admin": True, "metrics": False}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("GET", "/v1/models/smollm2:135m"),
        ("GET", "/v1/status"),
        ("GET", "/v1/queue/x"),
        ("POST", "/v1/inference"),
    ],
)
def test_all_else_needs_the_scope_inference(client, keys, method, path):
    assert client.open(path, method=method, headers=bearer(keys["metrics"])).status_code == 403
    for scope in ("inference", "admin"):
        status = client.open(path, method=method, headers=bearer(keys[scope])).status_code
        assert status not in (401, 403)


def test_the_name_of_the_key_is_logged_even_if_a_scope_is_missing(client, keys, caplog):
    caplog.set_level(logging.INFO)
    client.get("/v1/models", headers=bearer(keys["inference"]))
    client.get("/v1/models", headers=bearer(keys["metrics"]))
    client.get("/v1/models", headers=bearer("wrong-key"))
    lines = [vars(each) for each in caplog.records if each.getMessage() == "request"]
    assert [line["key"] for line in lines] == ["for-inference", "for-metrics", None]
    assert lines[2]["address"] == "127.0.0.1"
    everything = str([vars(record) for record in caplog.records])
    assert not any(shown in everything for shown in (*keys.values(), "wrong-key"))


def test_the_development_key_is_refused_with_a_keys_file(client, keys):
    assert client.get("/v1/models", headers=bearer("mes-dev-key-123")).status_code == 401


@pytest.mark.parametrize("key", ["a-key-of-the-operator", "mes-dev-key-123"])
def test_a_key_set_in_addition_to_a_keys_file_has_all_scopes(environment, keys, runtime, key):
    loaded = settings.load({**environment, "MES_API_KEY": key}, dotenv=None)
    app = create_app(loaded, runtime=runtime)
    try:
        path = "/v1/models/smollm2:135m/load"
        assert app.test_client().post(path, headers=bearer(key)).status_code == 200
    finally:
        app.extensions["mes"].close()


def send_wrong_keys(client: FlaskClient, times: int, **headers: str) -> list[int]:
    shown = {**bearer("wrong"), **headers}
    return [client.get("/v1/models", headers=shown).status_code for _ in range(times)]


def test_after_ten_wrong_keys_more_are_rate_limited_and_correct_ones_are_accepted(client, keys):
    assert send_wrong_keys(client, 12) == [401] * 10 + [429] * 2
    refused = client.get("/v1/models", headers=bearer("wrong"))
    assert refused.get_json()["code"] == "rate_limited"
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert client.get("/v1/models", headers=bearer(keys["inference"])).status_code == 200
    elsewhere = client.get(
        "/v1/models", headers=bearer("wrong"), environ_base={"REMOTE_ADDR": "192.0.2.9"}
    )
    assert elsewhere.status_code == 401


def test_a_request_without_a_key_is_not_counted(client):
    assert {client.get("/v1/models").status_code for _ in range(20)} == {401}


def test_without_trusted_proxies_forwarded_addresses_are_ignored(client):
    statuses = [
        send_wrong_keys(client, 1, **{"X-Forwarded-For": f"192.0.2.{number}"})[0]
        for number in range(11)
    ]
    assert statuses == [401] * 10 + [429]


def test_behind_a_trusted_proxy_only_its_own_forwarded_address_counts(environment, keys, runtime):
    loaded = settings.load({**environment, "TRUSTED_PROXIES": "1"}, dotenv=None)
    app = create_app(loaded, runtime=runtime)
    try:
        client = app.test_client()
        for number in range(10):
            send_wrong_keys(client, 1, **{"X-Forwarded-For": f"{number}, 192.0.2.1"})
        assert send_wrong_keys(client, 1, **{"X-Forwarded-For": "192.0.2.1"}) == [429]
        assert send_wrong_keys(client, 1, **{"X-Forwarded-For": "192.0.2.1, 192.0.2.2"}) == [401]
    finally:
        app.extensions["mes"].close()


def test_a_revoked_key_is_refused_without_a_restart(client, keys, keys_path):
    document = json.loads(keys_path.read_text())
    document["keys"][0]["disabled"] = True
    keys_path.write_text(json.dumps(document))
    headers = bearer(keys["inference"])
    eventually(lambda: client.get("/v1/models", headers=headers).status_code in (401, 429))


def test_deleting_needs_an_admin_key(client, keys):
    path = "/v1/models/smollm2:135m"
    refused = client.delete(path, headers=bearer(keys["inference"]))
    assert (refused.status_code, refused.get_json()["code"]) == (403, "forbidden")
    assert client.delete(path, headers=bearer(keys["admin"])).status_code == 200


def test_the_settings_need_an_admin_key_and_contain_none(client, keys, environment):
    refused = client.get("/v1/settings", headers=bearer(keys["inference"]))
    assert (refused.status_code, refused.get_json()["code"]) == (403, "forbidden")
    answer = client.get("/v1/settings", headers=bearer(keys["admin"]))
    assert answer.status_code == 200
    settings = answer.get_json()["settings"]
    assert settings.items() >= environment.items()
    assert "MES_API_KEY" not in settings
    assert answer.get_json()["development_key"] is False
    assert answer.get_json()["working_directory"] == str(Path.cwd())
