"""The OpenAPI 3.1 document, made of the application's routes and its views' operation docs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from typing import Any, cast

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin, resolver
from apispec.ext.marshmallow.common import resolve_schema_cls
from flask import Flask, current_app
from marshmallow import Schema, fields
from werkzeug.exceptions import BadRequest, NotFound, NotImplemented
from werkzeug.routing import Rule

from mes import __version__
from mes.api.host_header import MisdirectedRequest
from mes.api.openapi.descriptions import (
    ERROR_CAUSES,
    EXAMPLES,
    OVERVIEW,
    PATH_PARAMETERS,
    REQUEST_FIELDS,
    TAGS,
)
from mes.api.openapi.portable import portable
from mes.api.operation_docs import JSON, OperationDoc, operation_of
from mes.api.problems import ErrorFormat, error_format_for, status_and_code
from mes.api.response_fields import ResponseSchema
from mes.api.response_schemas import ProblemSchema
from mes.errors import ClientDisconnected, MesError
from mes.server import connection
from mes.server.connection import SERVER_ERRORS, ConnectRefused

_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")
_SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def document(app: Flask) -> dict[str, Any]:
    """Return the document with all routes whose views have operation docs."""
    spec = _empty_spec()
    for name, scheme in _SECURITY_SCHEMES.items():
        spec.components.security_scheme(name, scheme)
    for blueprint in app.blueprints.values():
        spec.tag({"name": blueprint.name, "description": TAGS[blueprint.name]})
    with app.app_context():  # the bounds of some fields are settings
        for rule in app.url_map.iter_rules():
            _add_path(spec, rule, app.view_functions[rule.endpoint])
    return portable(spec.to_dict())


def _add_path(spec: APISpec, rule: Rule, view: Callable[..., Any]) -> None:
    operation = operation_of(view)
    if operation is not None:
        spec.path(path=_path(rule), operations=_operations(spec, rule, view, operation))


def _empty_spec() -> APISpec:
    marshmallow = MarshmallowPlugin(schema_name_resolver=_component_name)
    spec = APISpec(
        title="MES",
        version=__version__,
        openapi_version="3.1.0",
        plugins=[marshmallow],
        info={"summary": "Model Execution Service", "description": OVERVIEW},
        servers=[{"url": "/"}],
    )
    assert marshmallow.converter is not None
    marshmallow.converter.add_attribute_function(_field_attributes)
    return spec


def _component_name(schema: Any) -> str:
    """Return the name of a schema in the document, which clients generate their classes from.

    A schema that was renamed keeps its published name as `component_name`.
    """
    cls = cast("type[Schema]", resolve_schema_cls(schema))
    return str(vars(cls).get("component_name") or resolver(schema))


def _field_attributes(
    converter: Any, field: fields.Field[Any], *, ret: dict[str, Any]
) -> dict[str, Any]:
    """Return the keywords of a field that apispec does not know."""
    attributes = dict(getattr(field, "shape", {}))
    if not isinstance(field.parent, ResponseSchema) and field.name in REQUEST_FIELDS:
        attributes["description"] = REQUEST_FIELDS[field.name]
    if field.allow_none and "type" in attributes:
        kinds = attributes["type"]
        attributes["type"] = [*(kinds if isinstance(kinds, list) else [kinds]), "null"]
    return attributes


# Operations.


def _path(rule: Rule) -> str:
    return _PARAMETER.sub(r"{\1}", rule.rule)


def _operations(
    spec: APISpec, rule: Rule, view: Callable[..., Any], operation: OperationDoc
) -> dict[str, Any]:
    methods = sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
    return {method.lower(): _operation(spec, rule, view, operation) for method in methods}


def _operation(
    spec: APISpec, rule: Rule, view: Callable[..., Any], operation: OperationDoc
) -> dict[str, Any]:
    summary, _, description = inspect.cleandoc(view.__doc__ or "").partition("\n")
    scopes = [] if operation.scope is None else [operation.scope]
    described = {
        "operationId": rule.endpoint.replace(".", "_"),
        "tags": [rule.endpoint.partition(".")[0]],
        "summary": summary.rstrip("."),
        "description": description.strip(),
        "parameters": [*map(_path_parameter, sorted(rule.arguments)), _REQUEST_ID_PARAMETER],
        "requestBody": operation.request and _body(operation.request, rule.endpoint),
        "responses": _responses(spec, operation, _path(rule)),
        # Scopes, which OpenAPI 3.1 allows for all kinds of security schemes.
        "security": [{name: scopes} for name in _SECURITY_SCHEMES] if scopes else [],
    }
    return {name: value for name, value in described.items() if value or name == "security"}


_REQUEST_ID_PARAMETER = {
    "name": "X-Request-ID",
    "in": "header",
    "description": "Id of this request, chosen by the client: up to 128 of `A-Z a-z 0-9 . _ : -`.",
    "schema": {"type": "string"},
}


def _path_parameter(name: str) -> dict[str, Any]:
    description, example = PATH_PARAMETERS[name]
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string", "minLength": 1},
        "example": example,
    }


def _body(schema: Schema, endpoint: str) -> dict[str, Any]:
    examples = {name: {"value": each} for name, each in EXAMPLES.get(endpoint, {}).items()}
    media = {"schema": schema, **({"examples": examples} if examples else {})}
    return {"required": True, "content": {"application/json": media}}


# Responses.

# A refused CONNECT is an error of no operation.
_SERVER_ERRORS = [error for kind, error in SERVER_ERRORS.items() if kind is not ConnectRefused]
# Errors of all requests, from the server, the framework and unexpected exceptions.
_COMMON_ERRORS = {
    *((kind.status, kind.code) for kind in _SERVER_ERRORS),
    *map(status_and_code, (BadRequest, MisdirectedRequest, NotImplemented, MesError)),
}

_REQUEST_ID_HEADER = {
    "description": "Id of this request: that of the client if it is valid, else one made by MES.",
    "required": True,
    "schema": {"type": "string"},
}
_RETRY_AFTER = {
    "description": "Seconds to wait before the next attempt.",
    "required": True,
    "schema": {"type": "integer", "minimum": 1},
}
_SHOULD_RETRY = {
    "description": "`false` if the same request would fail again.",
    "schema": {"type": "string", "enum": ["false"]},
}
_WWW_AUTHENTICATE = {"required": True, "schema": {"type": "string"}}
_ERROR_HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": _WWW_AUTHENTICATE},
    429: {"Retry-After": _RETRY_AFTER},
    503: {"Retry-After": _RETRY_AFTER},
}


def _responses(spec: APISpec, operation: OperationDoc, path: str) -> dict[str, Any]:
    """Return the documented responses, and a reference to a component for each error status."""
    responses = {
        str(status): _response_content(spec, operation, status) for status in operation.statuses
    }
    error_format = error_format_for(current_app, path)
    convert_status = error_format.convert_status if error_format else int
    pairs = _errors(operation, has_parameters="{" in path)
    for status, codes in _by_status(pairs, convert_status).items():
        if str(status) not in responses:
            responses[str(status)] = _error_reference(spec, status, codes, error_format)
    return dict(sorted(responses.items()))


def _errors(operation: OperationDoc, *, has_parameters: bool) -> set[tuple[int, str]]:
    """Return statuses and codes. A client that disconnected receives no response."""
    kinds = (*operation.raises, *([NotFound] if has_parameters else []))
    return _COMMON_ERRORS | {
        status_and_code(kind) for kind in kinds if kind is not ClientDisconnected
    }


def _by_status(
    pairs: set[tuple[int, str]], convert_status: Callable[[int], int]
) -> dict[int, list[str]]:
    statuses = sorted({convert_status(status) for status, _ in pairs})
    return {
        each: sorted(code for status, code in pairs if convert_status(status) == each)
        for each in statuses
    }


def _response_content(spec: APISpec, operation: OperationDoc, status: int) -> dict[str, Any]:
    return {
        "description": "Success." if status == 200 else "The same fields, with the cause.",
        "headers": {"X-Request-ID": _REQUEST_ID_HEADER},
        # Copies, because apispec replaces the schemas in them by references.
        "content": {
            kind: {"schema": _resolve_event_data(spec, deepcopy(schema))}
            for kind, schema in operation.content.items()
        },
    }


def _resolve_event_data(spec: APISpec, schema: Any) -> Any:
    """Replace the schemas in the data of an event by references: apispec does not look there."""
    if isinstance(schema, dict) and "properties" in schema:
        schema_resolver = cast(MarshmallowPlugin, spec.plugins[0]).resolver
        assert schema_resolver is not None
        _, content = schema["properties"]["data"]["anyOf"]
        content["contentSchema"] = schema_resolver.resolve_schema_dict(content["contentSchema"])
    return schema


def _error_reference(
    spec: APISpec, status: int, codes: list[str], error_format: ErrorFormat | None
) -> dict[str, Any]:
    name = _error_name(status, codes, error_format)
    if name not in spec.components.responses:
        content = (
            _converted_content(status, codes, error_format)
            if error_format
            else _problem_content(status, codes)
        )
        convert_code = error_format.convert_code if error_format else str
        spec.components.response(name, _error_response(status, codes, content, convert_code))
    return {"$ref": f"#/components/responses/{name}"}


def _error_name(status: int, codes: list[str], error_format: ErrorFormat | None) -> str:
    """Return a name that generators can use as the name of a class."""
    words = [error_format.name if error_format else "problem", str(status), *codes]
    return "".join(word.title() for word in "_".join(words).split("_"))


def _error_response(
    status: int, codes: list[str], content: dict[str, Any], convert_code: Callable[[str], str]
) -> dict[str, Any]:
    headers = {"X-Request-ID": _REQUEST_ID_HEADER, "X-Should-Retry": _SHOULD_RETRY}
    sent = map(convert_code, codes)
    return {
        "description": "; ".join(f"`{code}`: {ERROR_CAUSES[code]}" for code in sent),
        "headers": {**headers, **_ERROR_HEADERS.get(status, {})},
        "content": content,
    }


def _problem_content(status: int, codes: list[str]) -> dict[str, Any]:
    # Generators cannot merge a constant with the type of the field.
    exactly = {"type": "integer", "minimum": status, "maximum": status}
    restriction = {"status": exactly, "code": {"type": "string", "enum": codes}}
    return {
        connection.MIMETYPE: {
            "schema": {"allOf": [ProblemSchema, {"properties": restriction}]},
            "examples": dict(_examples(status, codes)),
        }
    }


def _converted_content(status: int, codes: list[str], error_format: ErrorFormat) -> dict[str, Any]:
    """Return the content in another error format.

    Errors that the server raises before it knows the path are problem documents here too.
    """
    server_codes = sorted({kind.code for kind in _SERVER_ERRORS if kind.status == status})
    restriction = {
        "properties": error_format.restrict_codes(
            [error_format.convert_code(code) for code in codes]
        )
    }
    examples = {
        error_format.convert_code(code): {"value": error_format.convert(example["value"])}
        for code, example in _examples(status, codes)
    }
    schema = {"allOf": [error_format.schema, restriction]}
    content = {JSON: {"schema": schema, "examples": examples}}
    return {**content, **(_problem_content(status, server_codes) if server_codes else {})}


def _examples(status: int, codes: Iterable[str]) -> Iterator[tuple[str, Any]]:
    for code in codes:
        example = connection.problem_document(
            status, code, ERROR_CAUSES[code], request_id="d3184d332ee1ffda30db14a0"
        )
        yield code, {"value": example}
