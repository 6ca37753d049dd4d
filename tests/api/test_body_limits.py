"""Limits of request bodies: sizes, lengths of lists, and values; each error names its limit."""

from __future__ import annotations

import json
import os
from base64 import b64encode

import pytest
from marshmallow import Schema, ValidationError, fields

from mes.api import request_body
from mes.api.operation_docs import operation_of
from mes.api.request_lists import MAX_MISTAKES, Items
from mes.config import settings
from tests.api.conftest import KEY

USER = {"role": "user", "content": "Hello"}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "f"}}
CHAT = {"model": "smollm2:135m", "messages": [USER]}
NATIVE = {"model_id": "smollm2:135m", "prompt": "Hello"}
DOORS = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": "smollm2:135m", "prompt": "Hello"},
    "/v1/embeddings": {"model": "all-minilm", "input": "Hello"},
    "/v1/inference": NATIVE,
}


@pytest.fixture
def post(client, app):
    app.config["MAX_CONTENT_LENGTH"] = settings.load({}, dotenv=None).max_body_bytes

    def post(path, body, **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"X-API-Key": KEY, "Content-Type": "application/json", **headers}
        return client.post(path, data=data, headers=sent)

    return post


def error_of(response):
    document = response.get_json()
    return document["error"] if isinstance(document["error"], dict) else document


class Counted(fields.Integer):
    """An integer field that counts how many values it has loaded."""

    loaded = 0

    def _deserialize(self, *args, **kwargs):
        self.loaded += 1
        return super()._deserialize(*args, **kwargs)


@pytest.mark.parametrize(
    ("elements", "loaded"),
    [([1] * 40, 40), ([1] * 41, 0), (["x"] * 40, MAX_MISTAKES + 1)],
    ids=["valid", "too many", "mistakes"],
)
def test_no_more_elements_are_loaded_than_necessary(elements, loaded):
    counted = Counted()
    schema = Schema.from_dict({"numbers": Items(counted, most=40)})()
    try:
        schema.load({"numbers": elements})
    except ValidationError:
        pass
    assert schema.fields["numbers"].inner.loaded == loaded


def lists_in(schema, seen):
    for field in schema.fields.values():
        if isinstance(field, fields.List):
            yield field
            field = field.inner
        if isinstance(field, fields.Nested) and type(field.schema) not in seen:
            seen.add(type(field.schema))
            yield from lists_in(field.schema, seen)


def test_every_list_of_a_request_has_a_limit(app):
    views = filter(None, map(operation_of, app.view_functions.values()))
    schemas = [each.request for each in views if each.request is not None]
    lists = [each for schema in schemas for each in lists_in(schema, set())]
    assert {each.name for each in lists} >= {"messages", "images", "tools", "tool_calls"}
    assert [each.name for each in lists if not isinstance(each, Items)] == []


@pytest.mark.parametrize(
    ("path", "body", "pointer", "limit"),
    [
        ("/v1/chat/completions", {**CHAT, "messages": [{"a": 1}] * 131_000}, "/messages", 4096),
        ("/v1/inference", {**NATIVE, "prompt": None, "messages": [{}] * 5000}, "/messages", 4096),
        ("/v1/chat/completions", {**CHAT, "tools": [TOOL] * 513}, "/tools", 512),
        (
            "/v1/chat/completions",
            {**CHAT, "messages": [{**USER, "content": [{"type": "text", "text": "a"}] * 1025}]},
            "/messages/0/content",
            1024,
        ),
        (
            "/v1/chat/completions",
            {**CHAT, "messages": [{"role": "assistant", "tool_calls": [CALL] * 257}, USER]},
            "/messages/0/tool_calls",
            256,
        ),
        (
            "/v1/inference",
            {**NATIVE, "prompt": None, "messages": [{**USER, "images": ["aGk="] * 257}]},
            "/messages/0/images",
            256,
        ),
        ("/v1/embeddings", {"model": "all-minilm", "input": ["a"] * 2049}, "/input", 2048),
    ],
)
def test_a_list_that_is_too_long_names_its_limit(post, runtime, path, body, pointer, limit):
    response = post(path, body)
    assert response.status_code in (400, 422)
    (mistake,) = error_of(response)["errors"]
    assert mistake["pointer"] == pointer
    assert str(limit) in mistake["detail"]
    assert runtime.prompts == []


@pytest.mark.parametrize("path", DOORS)
def test_a_body_with_too_many_values_is_refused_before_it_is_parsed(post, monkeypatch, path):
    monkeypatch.setattr(request_body, "_MAX_VALUES", 1000)
    text = json.dumps({**DOORS[path], "more": [{"a": 1}] * 400})
    response = post(path, text.encode())
    assert (response.status_code, error_of(response)["code"]) == (400, "malformed_request")
    assert "more than 1,000 values" in response.get_data(as_text=True)


@pytest.mark.parametrize("path", DOORS)
def test_separators_inside_a_text_do_not_count_as_values(post, monkeypatch, path):
    monkeypatch.setattr(request_body, "_MAX_VALUES", 50)
    text = json.dumps(DOORS[path]).replace("Hello", '[{\\"a\\":1},' * 100)
    assert post(path, text.encode()).status_code == 200


@pytest.mark.parametrize("path", DOORS)
def test_a_body_that_is_too_large_is_refused_with_its_size_and_the_limit(post, app, path):
    app.config["MAX_CONTENT_LENGTH"] = 20_000
    response = post(path, b" " * 20_001)
    assert response.status_code == 413
    for text in ("20001 bytes", "20000 bytes", "MAX_BODY_BYTES"):
        assert text in response.get_data(as_text=True)


@pytest.mark.parametrize("path", DOORS)
def test_a_byte_order_mark_before_a_body_is_skipped(post, path):
    assert post(path, b"\xef\xbb\xbf" + json.dumps(DOORS[path]).encode()).status_code == 200


def test_four_photos_of_4_megabytes_reach_the_runtime(post, runtime):
    photo = b64encode(os.urandom(4_000_000)).decode()
    image = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{photo}"}}
    content = [{"type": "text", "text": "What is this?"}, *[image] * 4]
    response = post(
        "/v1/chat/completions", {**CHAT, "messages": [{"role": "user", "content": content}]}
    )
    assert response.status_code == 200
    assert runtime.prompts[0].messages[0].images == (photo,) * 4


@pytest.mark.parametrize("path", DOORS)
def test_the_pointer_to_a_field_escapes_its_name(post, path):
    response = post(path, {**DOORS[path], "a/b~c": 1})
    document = response.get_json()
    error = error_of(response) if "error" in document else document
    assert [each["pointer"] for each in error["errors"]] == ["/a~1b~0c"]
    assert error.get("param", "a/b~c") == "a/b~c"
