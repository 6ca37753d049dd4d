"""JSON out: functions compiled from declared response fields, and the encoding of the result."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import orjson
from flask import Response
from marshmallow import fields

Document = dict[str, Any]

Serializer = Callable[[Any], Document]
"""Return the JSON object of a domain object."""

_Getter = Callable[[Any], Any]


def json_response(document: Document, status: int = 200) -> Response:
    """Return the document as a JSON response."""
    return Response(encode_json(document), status, mimetype="application/json")


def encode_json(document: Document, end: bytes = b"") -> bytes:
    """Return the document as the bytes of its JSON, followed by `end`."""
    try:
        return orjson.dumps(document) + end
    except TypeError:
        # orjson refuses integers of more than 64 bits, which a model may write.
        return json.dumps(document).encode() + end


def compile_serializer(declared: Mapping[str, fields.Field[Any]]) -> Serializer:
    """Return the function that makes a JSON object of these response fields."""
    required = _getters(declared, required=True)
    optional = _getters(declared, required=False)

    def serialize(source: Any) -> Document:
        return {name: get(source) for name, get in required}

    def serialize_with_optional(source: Any) -> Document:
        document = {name: get(source) for name, get in required}
        for name, get in optional:
            value = get(source)
            if value is not None:
                document[name] = value
        return document

    return serialize_with_optional if optional else serialize


def _getters(
    declared: Mapping[str, fields.Field[Any]], *, required: bool
) -> tuple[tuple[str, _Getter], ...]:
    return tuple(
        (name, _getter(name, field))
        for name, field in declared.items()
        if field.required is required
    )


def _getter(name: str, field: fields.Field[Any]) -> _Getter:
    source = field.metadata.get("source", name)
    get = attrgetter(source) if isinstance(source, str) else source
    if isinstance(field, fields.Nested):
        return _nested_getter(get, field)
    if isinstance(field, fields.List) and isinstance(field.inner, fields.Nested):
        return _list_getter(get, field.inner)
    return get


def _nested_getter(get: _Getter, field: fields.Nested) -> _Getter:
    serialize: Serializer = field.nested.serialize  # type: ignore[union-attr]

    def get_nested(source: Any) -> Document | None:
        value = get(source)
        return None if value is None else serialize(value)

    return get_nested


def _list_getter(get: _Getter, inner: fields.Nested) -> _Getter:
    serialize: Serializer = inner.nested.serialize  # type: ignore[union-attr]

    def get_list(source: Any) -> list[Document] | None:
        values = get(source)
        return None if values is None else [serialize(each) for each in values]

    return get_list
