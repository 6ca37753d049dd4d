"""The document at /openapi.json: complete, valid, and consistent with the service."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from mes import errors
from mes.api.openapi.descriptions import ERROR_CAUSES, REQUEST_FIELDS
from mes.api.openapi.docs_page import document_of
from mes.api.openapi.document import document
from mes.api.openapi.portable import portable
from tests.api.conftest import KEY
from tests.support.contract import Contract
from tests.test_readme import error_codes

GUIDE = (Path(__file__).parent.parent.parent / "docs/api.md").read_text()
KEYED = {"X-API-Key": KEY}


@pytest.fixture
def openapi_document(client):
    return client.get("/openapi.json").get_json()


def operations(openapi_document):
    return {
        (method.upper(), path): each
        for path, methods in openapi_document["paths"].items()
        for method, each in methods.items()
    }


def codes(openapi_document, operation):
    """Yield the status and the code of every error of an operation."""
    for status, response in operation["responses"].items():
        name = response.get("$ref", "").rpartition("/")[2]
        found = openapi_document["components"]["responses"].get(name, response)
        for media in found["content"].values():
            for code in media.get("examples", {}):
                yield int(status), code


def test_the_document_is_valid_openapi(openapi_document):
    assert openapi_document["openapi"].startswith("3.1.")
    assert list(OpenAPIV31SpecValidator(openapi_document).iter_errors()) == []


def parts(node):
    """Yield every object of a document, except examples."""
    if isinstance(node, dict):
        yield node
        for key, each in node.items():
            if key not in ("example", "examples"):
                yield from parts(each)
    elif isinstance(node, list):
        for each in node:
            yield from parts(each)


def test_generators_can_make_classes_of_every_part(openapi_document):
    for part in parts(openapi_document):
        if isinstance(values := part.get("enum"), list):
            assert all(isinstance(each, str | None) for each in values), part
            assert values != [None], part
        if isinstance(kinds := part.get("type"), list):
            assert len(kinds) == 1 or not {"array", "object"} & set(kinds), part
        if part.get("type") == "array":
            assert "items" in part, part
        if part.get("type") == "object":
            assert {"properties", "additionalProperties"} & set(part), part


def test_names_of_components_are_names_of_classes(openapi_document):
    for kind in ("schemas", "responses"):
        for name in openapi_document["components"][kind]:
            assert re.fullmatch(r"[A-Z][A-Za-z0-9]*", name)


@pytest.mark.parametrize(
    ("shape", "restated"),
    [
        ({"enum": [False, None]}, {"type": ["boolean", "null"]}),
        ({"enum": [[], None]}, {"anyOf": [{"type": "array", "items": {}}, {"type": "null"}]}),
        ({"enum": [None], "description": "d"}, {"description": "d"}),
        ({"enum": ["a", None]}, {"enum": ["a", None]}),
        (
            {"type": ["string", "array"], "minLength": 1, "maxItems": 4, "description": "d"},
            {
                "description": "d",
                "anyOf": [
                    {"type": "string", "minLength": 1},
                    {"type": "array", "items": {}, "maxItems": 4},
                ],
            },
        ),
        ({"type": "object"}, {"type": "object", "additionalProperties": True}),
        (
            {"properties": {"type": {"type": "string"}}},
            {"properties": {"type": {"type": "string"}}},
        ),
        ({"properties": {"enum": {"enum": [1]}}}, {"properties": {"enum": {"type": "integer"}}}),
        ({"example": {"type": ["string", "array"]}}, {"example": {"type": ["string", "array"]}}),
    ],
)
def test_a_form_that_generators_cannot_read_is_restated(shape, restated):
    assert portable({"schemas": {"One": shape}}) == {"schemas": {"One": restated}}


# Paths that people and browsers try.
NOT_OF_THE_API = {("GET", "/"), ("GET", "/docs/"), ("GET", "/favicon.ico")}


def test_every_route_is_in_it(app, openapi_document):
    routes = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert set(operations(openapi_document)) == routes - NOT_OF_THE_API


def test_the_guide_has_the_same_table_of_paths(openapi_document):
    def bare(path):
        return re.sub(r"\{.*?\}", "{}", path)

    rows = re.findall(r"^\| `(GET|POST|DELETE) ([^`]+)` \|", GUIDE, re.MULTILINE)
    named = {(method, bare(path)) for method, path in operations(openapi_document)}
    assert {(method, bare(path)) for method, path in rows} == named


def test_every_error_that_can_be_sent_is_in_it(openapi_document):
    hidden = {(499, "client_closed_request"), (499, "client_too_slow")}
    found = {
        pair
        for each in operations(openapi_document).values()
        for pair in codes(openapi_document, each)
    }
    assert error_codes() - hidden <= found
    assert not hidden & found


def test_every_code_and_every_request_field_has_a_description(openapi_document):
    found = {
        code
        for each in operations(openapi_document).values()
        for _, code in codes(openapi_document, each)
    }
    assert found == set(ERROR_CAUSES)
    schemas = openapi_document["components"]["schemas"]
    asked = {
        name for key in schemas if key.endswith("Request") for name in schemas[key]["properties"]
    }
    assert asked == set(REQUEST_FIELDS) & asked


def test_the_operations_that_need_a_key_are_those_that_refuse_without_one(client, openapi_document):
    for (method, path), operation in operations(openapi_document).items():
        response = client.open(
            path.replace("{model_id}", "x").replace("{request_id}", "x"), method=method
        )
        assert (response.status_code == 401) == bool(operation["security"]), path
        assert (401 in dict(codes(openapi_document, operation))) == bool(operation["security"]), (
            path
        )


def test_the_documented_bounds_are_those_of_the_validation(openapi_document, ask):
    fields = openapi_document["components"]["schemas"]["InferenceRequest"]["properties"]
    bounded = {name: each for name, each in fields.items() if "maximum" in each}
    assert {"temperature", "max_tokens", "seed", "timeout"} <= set(bounded)
    for name, each in bounded.items():
        assert ask(**{name: each["maximum"]}).status_code == 200
        assert ask(**{name: each["maximum"] + 1}).status_code == 422


def test_every_example_of_a_request_is_accepted(client, openapi_document):
    for (method, path), operation in operations(openapi_document).items():
        body = operation.get("requestBody", {"content": {"application/json": {"examples": {}}}})
        for example in body["content"]["application/json"]["examples"].values():
            response = client.open(path, method=method, json=example["value"], headers=KEYED)
            assert response.status_code == 200
            response.get_data()  # a stream that is not read goes on


@pytest.mark.parametrize("error", [None, errors.PullFailed("digest mismatch")])
def test_the_lines_of_a_pull_fit_the_document(client, runtime, openapi_document, error):
    runtime.pull_error = error
    response = client.post("/v1/models/absent:1b/pull", headers=KEYED)
    lines = [json.loads(line) for line in response.get_data().splitlines()]
    kind = "/v1/models/{model_id}/pull"
    assert (
        Contract(openapi_document).violations("POST", kind, 200, "application/x-ndjson", lines)
        == []
    )
    lines[-1]["surprise"] = 1
    assert (
        Contract(openapi_document).violations("POST", kind, 200, "application/x-ndjson", lines)
        != []
    )


def test_it_is_made_once_and_for_each_application_alike(app):
    made = document_of(app)
    assert document_of(app) is made
    assert document(app) == made


def test_apispec_is_not_imported_before_the_first_use():
    program = "import sys, mes.app; sys.exit('apispec' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
