"""Unit tests of the HTTP client: its requests, and the result of each kind of answer."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import requests
import responses
from urllib3.exceptions import ProtocolError

from mes.cli.client import CommandError, MesClient, ServiceUnreachable, Target

URL = "http://mes.test:8001"
KEY = "mes_secret"
PROBLEM = {"code": "model_not_found", "detail": "the model 'x' is unknown", "request_id": "r1"}


@pytest.fixture
def server() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock() as server:
        yield server


@pytest.fixture
def client() -> MesClient:
    return MesClient(Target(URL, KEY))


def get_error(client: MesClient) -> CommandError:
    """Return the error of a GET request; its message is one line."""
    with pytest.raises(CommandError) as raised:
        client.get("/v1/models", required_field="models")
    assert "\n" not in raised.value.message
    return raised.value


def test_a_json_answer_is_returned_and_the_key_is_sent(server, client):
    server.get(
        f"{URL}/v1/models",
        json={"models": []},
        match=[responses.matchers.header_matcher({"Authorization": f"Bearer {KEY}"})],
    )
    assert client.get("/v1/models", required_field="models") == {"models": []}


def test_a_body_is_sent_as_json(server, client):
    request = {"model_id": "a:1b", "prompt": "Grüße"}
    server.post(
        f"{URL}/v1/inference",
        json={"output": "Hello"},
        match=[
            responses.matchers.json_params_matcher(request),
            responses.matchers.header_matcher({"Content-Type": "application/json"}),
        ],
    )
    assert client.post("/v1/inference", request) == {"output": "Hello"}


def test_only_get_requests_have_a_time_limit(server, client):
    get = server.get(f"{URL}/v1/models", json={"models": []})
    post = server.post(f"{URL}/v1/models/x/load", json={})
    client.get("/v1/models", required_field="models")
    client.post("/v1/models/x/load")
    limits = [call.request.req_kwargs["timeout"] for route in (get, post) for call in route.calls]
    assert limits == [(5.0, 15.0), (5.0, None)]


def test_a_problem_document_is_raised_with_its_code_and_request(server, client):
    server.get(f"{URL}/v1/models", json=PROBLEM, status=404)
    expected = "the model 'x' is unknown (model_not_found, request r1)"
    assert get_error(client).message == expected


def test_a_model_not_pulled_is_raised_with_the_command_for_it(server, client):
    problem = {**PROBLEM, "code": "model_not_pulled", "detail": "x is not pulled"}
    server.post(f"{URL}/v1/models/x/load", json=problem, status=404)
    with pytest.raises(CommandError) as raised:
        client.post("/v1/models/x/load")
    expected = "x is not pulled; or fetch it with `mes pull` (model_not_pulled, request r1)"
    assert raised.value.message == expected


def test_a_rejected_key_is_raised_with_the_settings_for_it(server, client):
    server.get(f"{URL}/v1/models", json={**PROBLEM, "code": "unauthorized"}, status=401)
    expected = "the service does not accept the key; set --key or MES_API_KEY to a valid key"
    assert get_error(client).message == f"{expected} (unauthorized, request r1)"


@pytest.mark.parametrize("key", ["ключ", "two words", "line\nbreak", "tab\t"])
def test_an_invalid_key_is_raised_before_any_request(key):
    with pytest.raises(CommandError, match="--key or MES_API_KEY to visible ASCII") as raised:
        MesClient(Target(URL, key))
    assert key not in raised.value.message


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(200, "<html>Welcome to nginx!</html>", id="HTML"),
        pytest.param(200, "[]", id="a JSON array"),
        pytest.param(200, '{"object": "list"}', id="without the field"),
        pytest.param(502, "<html>Bad gateway</html>", id="an error that is not JSON"),
        pytest.param(404, '{"message": "Not found"}', id="an error without a code"),
    ],
)
def test_a_server_that_is_not_mes_is_reported_with_the_status(server, client, status, body):
    server.get(f"{URL}/v1/models", body=body, status=status)
    assert f"the server at {URL} (status {status}) is not MES" in get_error(client).message


def test_a_redirect_is_not_followed(server, client):
    server.get(f"{URL}/v1/models", status=302, headers={"Location": "http://other.test/"})
    assert "(status 302) is not MES" in get_error(client).message
    assert [call.request.url for call in server.calls] == [f"{URL}/v1/models"]


def test_an_error_status_is_returned_where_any_status_is_asked_for(server, client):
    server.get(f"{URL}/ready", json={"runtime": "unreachable"}, status=503)
    assert client.get_any_status("/ready") == (503, {"runtime": "unreachable"})


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (requests.ConnectionError("refused"), "start MES with `mes up` or `mes serve`"),
        (requests.ConnectTimeout("too slow"), "start MES with `mes up` or `mes serve`"),
        (requests.ReadTimeout("too slow"), "did not answer within 15 s"),
        (requests.exceptions.SSLError("self-signed"), "set REQUESTS_CA_BUNDLE"),
        (requests.ConnectionError(ProtocolError("reset")), "broke off before the answer ended"),
    ],
)
def test_a_connection_error_is_raised_with_its_remedy(server, client, error, message):
    server.get(f"{URL}/v1/models", body=error)
    raised = get_error(client)
    assert URL in raised.message
    assert message in raised.message
    assert isinstance(raised, ServiceUnreachable) == ("mes serve" in message)


def test_an_invalid_url_is_reported():
    for url in ("http://[", "ftp://mes.test"):
        assert f"{url} is not a valid URL" in get_error(MesClient(Target(url, KEY))).message


def test_the_lines_of_a_stream_are_returned_until_an_error(server, client):
    documents = [{"type": "progress", "status": "pulling"}, {**PROBLEM, "type": "error"}]
    body = "".join(f"{json.dumps(document)}\n" for document in documents)
    server.post(f"{URL}/v1/models/x/pull", body=body)
    stream = client.post_stream("/v1/models/x/pull")
    assert next(stream) == documents[0]
    with pytest.raises(CommandError, match="model_not_found, request r1"):
        next(stream)


def test_a_stream_that_is_rejected_raises_its_problem(server, client):
    server.post(f"{URL}/v1/models/x/pull", json=PROBLEM, status=404)
    with pytest.raises(CommandError, match="model_not_found, request r1"):
        next(client.post_stream("/v1/models/x/pull"))
