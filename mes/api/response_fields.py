"""Response fields: one declaration gives the JSON value and its documentation.

A response schema lists its fields. `serialize` makes the JSON object of a domain object out of
them, and /openapi.json describes them. The value of a field comes from its `source`: the name of an
attribute (dots allowed) or a function of the domain object; without one, from the attribute that
has the name of the field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, ClassVar

import orjson
from flask import Response
from marshmallow import EXCLUDE, Schema, fields, validate
from marshmallow.schema import SchemaMeta

Document = dict[str, Any]

Serializer = Callable[[Any], Document]
"""Return the JSON object of a domain object."""

_Getter = Callable[[Any], Any]

_ESCAPES = {each.encode(): b"\\u%04x" % ord(each) for each in "\x85\u2028\u2029"}
_LINE_BREAK = re.compile(b"|".join(_ESCAPES))


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


def encode_json_line(document: Document, end: bytes) -> bytes:
    """Return the document as the bytes of its JSON without any line break, followed by `end`.

    Some clients divide a stream also at U+0085, U+2028 and U+2029, so these are escaped. JSON
    escapes the other line breaks in any case.
    """
    line = encode_json(document, end)
    if line.isascii():  # most lines are, and no search takes less time
        return line
    return _LINE_BREAK.sub(lambda found: _ESCAPES[found[0]], line)


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


class _ResponseSchemaMeta(SchemaMeta):
    """Compile the serializer of each schema once, when its class is created.

    marshmallow's own `dump` takes about 50 us for an inference, the compiled function about 10.
    """

    def __init__(cls, name: str, bases: tuple[type, ...], attributes: dict[str, Any]) -> None:
        super().__init__(name, bases, attributes)  # type: ignore[no-untyped-call]
        declared: dict[str, fields.Field[Any]] = cls._declared_fields
        included = {n: each for n, each in declared.items() if n not in cls.opts.exclude}
        cls.serialize = staticmethod(compile_serializer(included))
        cls.field_names = frozenset(included)
        cls.required_names = frozenset(n for n, each in included.items() if each.required)


class ResponseSchema(Schema, metaclass=_ResponseSchemaMeta):
    """A JSON object in a response. Later versions may add fields, so clients ignore unknown ones.

    `serialize` returns the JSON object of a domain object.
    """

    serialize: ClassVar[Serializer]
    field_names: ClassVar[frozenset[str]]
    required_names: ClassVar[frozenset[str]]

    class Meta:
        unknown = EXCLUDE

    @classmethod
    def build(cls, **values: Any) -> Document:
        """Return the JSON object with these values, for one that no single object describes.

        Raises TypeError for a field that is not declared, and for a required one that is missing.
        """
        if not cls.required_names <= values.keys() <= cls.field_names:
            missing = sorted(cls.required_names - values.keys())
            undeclared = sorted(values.keys() - cls.field_names)
            raise TypeError(f"{cls.__name__}: missing {missing}, not declared {undeclared}")
        return values


def field(
    kind: type[fields.Field[Any]],
    description: str,
    *inner: Any,
    source: str | Callable[[Any], Any] | None = None,
    null: bool = False,
    required: bool = True,
    metadata: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Declare a field.

    Args:
        null: the value may be null.
        required: the field is always there; else it is left out where its source gives None.
        metadata: more of JSON Schema's keywords, for the document.
    """
    documented = {"description": description, **({} if source is None else {"source": source})}
    return kind(
        *inner,
        required=required,
        allow_none=null,
        metadata={**documented, **(metadata or {})},
        **options,
    )


def string(description: str, **options: Any) -> Any:
    return field(fields.String, description, **options)


def choice(values: tuple[str, ...], description: str, **options: Any) -> Any:
    """Declare a string that is one of a few."""
    return string(description, validate=validate.OneOf(values), **options)


def constant(value: str, description: str, **options: Any) -> Any:
    """Declare a string that is always the same."""
    return choice((value,), description, source=lambda _: value, **options)


def integer(description: str, **options: Any) -> Any:
    return field(fields.Integer, description, **options)


def number(description: str, **options: Any) -> Any:
    return field(fields.Float, description, **options)


def boolean(description: str, **options: Any) -> Any:
    return field(fields.Boolean, description, **options)


def strings(description: str, **options: Any) -> Any:
    return field(fields.List, description, fields.String(), **options)


def integers(description: str, **options: Any) -> Any:
    return field(fields.List, description, fields.Integer(), **options)


def json_object(description: str, **options: Any) -> Any:
    return field(fields.Dict, description, **options)


def json_value(description: str, **options: Any) -> Any:
    return field(fields.Raw, description, **options)


def nested(schema: type[ResponseSchema], description: str, **options: Any) -> Any:
    return field(fields.Nested, description, schema, **options)


def nested_list(schema: type[ResponseSchema], description: str, **options: Any) -> Any:
    return field(fields.List, description, fields.Nested(schema), **options)
