"""The Host header: a web page whose name resolves to this machine gets no answers."""

from __future__ import annotations

import json

import pytest
from werkzeug.test import EnvironBuilder, run_wsgi_app

from mes.app import create_app
from mes.config import settings
from mes.config.settings_schema import DEVELOPMENT_KEY as DEVELOPMENT_KEY_TEXT
from tests.api.conftest import KEY, MODELS
from tests.fakes import FakeRuntime

LOCAL = ["localhost", "LocalHost:8001", "127.0.0.1:8001", "127.9.8.7", "[::1]:8001", "[::1]"]
FOREIGN = [
    *("evil.example", "evil.example:8001", "localhost.evil.example", "127.0.0.1.evil.example"),
    *("xlocalhost", "192.168.1.5", "10.0.0.1:8001", "0.0.0.0:8001", "[2001:db8::1]:8001"),
    *("box.local", "box.internal", "mes"),
]
DEVELOPMENT_KEY: dict[str, str] = {}
EXPOSED_DEVELOPMENT_KEY = {"HOST": "0.0.0.0", "MES_ALLOW_DEV_KEY": "true"}
OWN_KEY = {"MES_API_KEY": KEY}
LOCAL_ONLY = [
    DEVELOPMENT_KEY,
    OWN_KEY,
    {**OWN_KEY, "HOST": "::1"},
    {**OWN_KEY, "HOST": "localhost"},
    EXPOSED_DEVELOPMENT_KEY,
    {"TRUSTED_PROXIES": "1"},
]
ANY_NAME = [{**OWN_KEY, "HOST": "0.0.0.0"}, {**OWN_KEY, "TRUSTED_PROXIES": "1"}]


@pytest.fixture
def serve(tmp_path):
    """Return a function that returns a client of the application with these settings."""
    apps = []
    catalog = tmp_path / "models.json"
    catalog.write_text(json.dumps({"models": MODELS}))

    def serve(environment):
        paths = {"MODELS_CONFIG_PATH": str(catalog), "STATE_DIR": str(tmp_path / "state")}
        loaded = settings.load({**paths, **environment}, dotenv=None)
        apps.append(create_app(loaded, runtime=FakeRuntime()))
        return apps[-1].test_client()

    yield serve
    for app in apps:
        app.extensions["mes"].close()


def status(client, host, path="/health"):
    return client.get(path, headers={"Host": host}).status_code


@pytest.mark.parametrize("environment", LOCAL_ONLY)
def test_only_localhost_is_answered(serve, environment):
    client = serve(environment)
    assert {host: status(client, host) for host in LOCAL} == dict.fromkeys(LOCAL, 200)
    assert {host: status(client, host) for host in FOREIGN} == dict.fromkeys(FOREIGN, 421)


@pytest.mark.parametrize("environment", ANY_NAME)
def test_any_name_is_answered_for_other_machines_and_behind_a_proxy(serve, environment):
    client = serve(environment)
    for host in (*LOCAL, *FOREIGN):
        assert status(client, host) == 200


@pytest.mark.parametrize("environment", [*LOCAL_ONLY, *ANY_NAME])
def test_allowed_hosts_are_answered_beside_localhost_and_no_others(serve, environment):
    client = serve({**environment, "ALLOWED_HOSTS": "mes.example,.evil.example,192.168.1.5"})
    for host in ("mes.example:80", "MES.example", "a.evil.example", "192.168.1.5:8001", *LOCAL):
        assert status(client, host) == 200
    for host in ("a.mes.example", "mes", "192.168.1.50"):
        assert status(client, host) == 421


@pytest.mark.parametrize(
    "path", ["/", "/health", "/ready", "/docs", "/openapi.json", "/metrics", "/v1/status", "/no"]
)
def test_no_path_is_answered_for_a_foreign_name(serve, path):
    client = serve(DEVELOPMENT_KEY)
    headers = {"Host": "evil.example:8001", "Authorization": f"Bearer {DEVELOPMENT_KEY_TEXT}"}
    for method in ("GET", "POST", "OPTIONS", "DELETE"):
        response = client.open(path, method=method, headers=headers, json={})
        assert response.status_code == 421


def test_the_error_names_the_host_and_the_setting(serve):
    response = serve(DEVELOPMENT_KEY).get("/health", headers={"Host": "evil.example:8001"})
    problem = response.get_json()
    assert (problem["code"], response.mimetype) == (
        "misdirected_request",
        "application/problem+json",
    )
    assert problem["detail"] == (
        "the host evil.example in the Host header is not allowed; use localhost or 127.0.0.1, or "
        "ask the operator to add evil.example to ALLOWED_HOSTS"
    )
    assert response.headers["X-Should-Retry"] == "false"


def test_the_error_is_one_of_openai_on_its_endpoints(serve):
    headers = {"Host": "evil.example"}
    response = serve(DEVELOPMENT_KEY).post("/v1/chat/completions", json={}, headers=headers)
    assert response.status_code == 421
    assert response.get_json()["error"]["code"] == "misdirected_request"


def test_an_old_client_without_the_header_is_answered(serve):
    environ = EnvironBuilder("/health").get_environ()
    del environ["HTTP_HOST"]
    environ |= {"SERVER_PROTOCOL": "HTTP/1.0", "SERVER_NAME": "0.0.0.0"}
    _, status, _ = run_wsgi_app(serve(EXPOSED_DEVELOPMENT_KEY).application, environ)
    assert status == "200 OK"
