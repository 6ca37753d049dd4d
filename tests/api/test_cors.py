"""Cross-origin requests: pages of the configured origins may call the service, no others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.api.conftest import KEY

PAGE = "https://app.example"
CHAT = {"model": "smollm2:135m", "messages": [{"role": "user", "content": "Hello"}]}
ASKED = "authorization,content-type,x-stainless-os"


@pytest.fixture(autouse=True)
def origins(app):
    services = app.extensions["mes"]
    settings = replace(services.settings, cors_origins=(PAGE, "http://localhost:3000"))
    app.extensions["mes"] = replace(services, settings=settings)


def preflight(client, path="/v1/chat/completions", origin=PAGE, **headers):
    sent = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": ASKED}
    return client.options(path, headers={"Origin": origin, **sent, **headers})


def listed(response, name):
    return {each.strip().lower() for each in response.headers.get(name, "").split(",")}


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/models/a/b:c", "/health", "/nowhere"]
)
def test_a_preflight_is_answered_without_a_key(client, path):
    response = preflight(client, path)
    assert (response.status_code, response.data) == (204, b"")
    assert response.headers["Access-Control-Allow-Origin"] == PAGE
    assert listed(response, "Access-Control-Allow-Methods") == {"get", "post"}
    assert listed(response, "Access-Control-Allow-Headers") >= {*ASKED.split(","), "x-api-key"}
    assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize("stream", [False, True])
def test_a_page_may_read_the_response_and_its_headers(client, stream):
    headers = {"Authorization": f"Bearer {KEY}", "Origin": PAGE}
    response = client.post("/v1/chat/completions", json={**CHAT, "stream": stream}, headers=headers)
    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Origin"] == PAGE
    assert listed(response, "Access-Control-Expose-Headers") >= {"x-request-id", "retry-after"}
    response.close()


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [("/v1/status", {}, 401), ("/v1/status", {"X-API-Key": "wrong"}, 401), ("/nowhere", {}, 404)],
)
def test_a_page_may_read_errors(client, path, headers, status):
    response = client.get(path, headers={"Origin": PAGE, **headers})
    assert response.status_code == status
    assert response.headers["Access-Control-Allow-Origin"] == PAGE


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "https://app.example.evil", "http://app.example", "null", "*"],
)
def test_other_pages_get_no_permission(client, origin):
    for response in (
        preflight(client, origin=origin),
        client.get("/health", headers={"Origin": origin}),
    ):
        assert not [name for name, _ in response.headers if name.startswith("Access-Control-")]


def test_every_response_varies_with_the_origin(client):
    for headers in ({}, {"Origin": PAGE}, {"Origin": "https://evil.example"}):
        assert "origin" in listed(client.get("/health", headers=headers), "Vary")


def test_without_origins_nothing_is_allowed(client, app):
    services = app.extensions["mes"]
    settings = replace(services.settings, cors_origins=())
    app.extensions["mes"] = replace(services, settings=settings)
    for response in (preflight(client), client.get("/health", headers={"Origin": PAGE})):
        assert "Vary" not in response.headers
        assert not [name for name, _ in response.headers if name.startswith("Access-Control-")]
