"""The document: OpenAPI 3.1, made of the application's routes and of what their views promise."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any, cast

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import Flask
from marshmallow import Schema, fields
from werkzeug.exceptions import BadRequest, NotFound, NotImplemented
from werkzeug.routing import Rule

from mes import __version__
from mes.api.openai import error_format as openai
from mes.api.openai.openai_schemas import OpenAiErrorSchema
from mes.api.openapi.descriptions import EXAMPLES, FIELDS, OVERVIEW, PARAMETERS, TAGS, WHEN
from mes.api.operation_docs import JSON, Operation, operation_of
from mes.api.problems import status_and_code
from mes.api.response_fields import ResponseSchema
from mes.api.response_schemas import ProblemSchema
from mes.errors import ClientDisconnected, MesError
from mes.server import problem_document
from mes.server.connection import SERVER_ERRORS

_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def document(app: Flask) -> dict[str, Any]:
    """The whole of it; every route whose view promises something is there."""
    spec = _empty()
    for name, scheme in _SCHEMES.items():
        spec.components.security_scheme(name, scheme)
    for blueprint in app.blueprints.values():
        spec.tag({"name": blueprint.name, "description": TAGS[blueprint.name]})
    with app.app_context():  # the bounds of some fields are settings
        for rule in app.url_map.iter_rules():
            _add(spec, rule, app.view_functions[rule.endpoint])
    return spec.to_dict()


def _add(spec: APISpec, rule: Rule, view: Callable[..., Any]) -> None:
    operation = operation_of(view)
    if operation is not None:
        spec.path(path=_path(rule), operations=_operations(spec, rule, view, operation))


def _empty() -> APISpec:
    marshmallow = MarshmallowPlugin()
    spec = APISpec(
        title="MES",
        version=__version__,
        openapi_version="3.1.0",
        plugins=[marshmallow],
        info={"summary": "Model Execution Service", "description": OVERVIEW},
        servers=[{"url": "/"}],
    )
    assert marshmallow.converter is not None
    marshmallow.converter.add_attribute_function(_shape_of)
    return spec


def _shape_of(converter: Any, field: fields.Field[Any], *, ret: dict[str, Any]) -> dict[str, Any]:
    """What a field of ours says of itself beside what is known of marshmallow's."""
    shape = dict(getattr(field, "shape", {}))
    if not isinstance(field.parent, ResponseSchema) and field.name in FIELDS:
        shape["description"] = FIELDS[field.name]
    if field.allow_none and "type" in shape:
        kinds = shape["type"] if isinstance(shape["type"], list) else [shape["type"]]
        shape["type"] = [*kinds, "null"]
    return shape


def _path(rule: Rule) -> str:
    return _PARAMETER.sub(r"{\1}", rule.rule)


def _operations(
    spec: APISpec, rule: Rule, view: Callable[..., Any], operation: Operation
) -> dict[str, Any]:
    methods = sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
    return {method.lower(): _operation(spec, rule, view, operation) for method in methods}


def _operation(
    spec: APISpec, rule: Rule, view: Callable[..., Any], operation: Operation
) -> dict[str, Any]:
    summary, _, description = inspect.cleandoc(view.__doc__ or "").partition("\n")
    scopes = [] if operation.scope is None else [operation.scope]
    told = {
        "operationId": rule.endpoint.replace(".", "_"),
        "tags": [rule.endpoint.partition(".")[0]],
        "summary": summary.rstrip("."),
        "description": description.strip(),
        "parameters": [*map(_parameter, sorted(rule.arguments)), _REQUEST_ID],
        "requestBody": operation.request and _body(operation.request, rule.endpoint),
        "responses": responses(spec, operation, _path(rule)),
        # Names of roles, which OpenAPI allows here.
        "security": [{name: scopes} for name in _SCHEMES] if scopes else [],
    }
    return {name: value for name, value in told.items() if value or name == "security"}


_REQUEST_ID = {
    "name": "X-Request-ID",
    "in": "header",
    "description": "the caller's own name for this request; up to 128 of `A-Z a-z 0-9 . _ : -`",
    "schema": {"type": "string"},
}


def _parameter(name: str) -> dict[str, Any]:
    text, example = PARAMETERS[name]
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": text,
        "schema": {"type": "string", "minLength": 1},
        "example": example,
    }


def _body(schema: Schema, endpoint: str) -> dict[str, Any]:
    examples = {name: {"value": each} for name, each in EXAMPLES.get(endpoint, {}).items()}
    media = {"schema": schema, **({"examples": examples} if examples else {})}
    return {"required": True, "content": {"application/json": media}}


# Responses: what an operation answers, and every problem it can answer with.

# What every request may meet, whatever its door: the server, the rules of HTTP, a bug.
_ANYWHERE = {
    *((kind.status, kind.code) for kind in SERVER_ERRORS.values()),
    *map(status_and_code, (BadRequest, NotImplemented, MesError)),
}

_REQUEST_ID_HEADER = {
    "description": "the caller's, if it is harmless; else one of our own",
    "required": True,
    "schema": {"type": "string"},
}
_RETRY_AFTER = {
    "description": "seconds to wait before the next try",
    "required": True,
    "schema": {"type": "integer", "minimum": 1},
}
_HOW_TO_ENTER = {"required": True, "schema": {"type": "string"}}
_OF_PROBLEMS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": _HOW_TO_ENTER},
    429: {"Retry-After": _RETRY_AFTER},
    503: {"Retry-After": _RETRY_AFTER},
}


def responses(spec: APISpec, operation: Operation, path: str) -> dict[str, Any]:
    """The answers that are promised, then the problems, each registered with the document once."""
    told = {
        str(status): _response_content(spec, operation, status) for status in operation.statuses
    }
    is_openai = path in openai.OPENAI_PATHS
    pairs = _problems(operation, has_parameters="{" in path)
    for status, codes in _by_status(pairs, openai.openai_status if is_openai else int).items():
        if str(status) not in told:
            told[str(status)] = _registered(spec, status, codes, is_openai=is_openai)
    return dict(sorted(told.items()))


def _problems(operation: Operation, *, has_parameters: bool) -> set[tuple[int, str]]:
    """Statuses and codes. What tells of a caller that has gone is heard by nobody."""
    kinds = (*operation.raises, *([NotFound] if has_parameters else []))
    return _ANYWHERE | {status_and_code(kind) for kind in kinds if kind is not ClientDisconnected}


def _by_status(pairs: set[tuple[int, str]], shown_as: Callable[[int], int]) -> dict[int, list[str]]:
    statuses = sorted({shown_as(status) for status, _ in pairs})
    return {
        each: sorted(code for status, code in pairs if shown_as(status) == each)
        for each in statuses
    }


def _response_content(spec: APISpec, operation: Operation, status: int) -> dict[str, Any]:
    return {
        "description": "Done" if status == 200 else "The same, with what is wrong",
        "headers": {"X-Request-ID": _REQUEST_ID_HEADER},
        # Copies, because schemas in them are replaced by references.
        "content": {
            kind: {"schema": _resolved(spec, deepcopy(shape))}
            for kind, shape in operation.content.items()
        },
    }


def _resolved(spec: APISpec, shape: Any) -> Any:
    """With references where apispec does not look for schemas: in the data of an event."""
    if isinstance(shape, dict) and "properties" in shape:
        resolver = cast(MarshmallowPlugin, spec.plugins[0]).resolver
        assert resolver is not None
        _, content = shape["properties"]["data"]["anyOf"]
        content["contentSchema"] = resolver.resolve_schema_dict(content["contentSchema"])
    return shape


def _registered(spec: APISpec, status: int, codes: list[str], *, is_openai: bool) -> dict[str, Any]:
    name = ".".join([*(["openai"] if is_openai else []), str(status), *codes])
    if name not in spec.components.responses:
        content = _of_problem(status, codes)
        if is_openai:
            content = _of_openai(status, codes)
        spec.components.response(name, _response(status, codes, content))
    return {"$ref": f"#/components/responses/{name}"}


def _response(status: int, codes: list[str], content: dict[str, Any]) -> dict[str, Any]:
    return {
        "description": "; ".join(f"`{code}`: {WHEN[code]}" for code in codes),
        "headers": {"X-Request-ID": _REQUEST_ID_HEADER, **_OF_PROBLEMS.get(status, {})},
        "content": content,
    }


def _of_problem(status: int, codes: list[str]) -> dict[str, Any]:
    narrowed = {"status": {"const": status}, "code": {"enum": codes}}
    return {
        problem_document.MIMETYPE: {
            "schema": {"allOf": [ProblemSchema, {"properties": narrowed}]},
            "examples": dict(_examples(status, codes)),
        }
    }


def _of_openai(status: int, codes: list[str]) -> dict[str, Any]:
    """What the server refuses before it knows the path is a problem at these doors too."""
    by_the_server = sorted({kind.code for kind in SERVER_ERRORS.values() if kind.status == status})
    narrowed = {"error": {"properties": {"code": {"enum": codes}}}}
    examples = {
        code: {"value": openai.to_openai_error(example["value"])}
        for code, example in _examples(status, codes)
    }
    schema = {"allOf": [OpenAiErrorSchema, {"properties": narrowed}]}
    told = {JSON: {"schema": schema, "examples": examples}}
    return {**told, **(_of_problem(status, by_the_server) if by_the_server else {})}


def _examples(status: int, codes: Iterable[str]) -> Iterable[tuple[str, Any]]:
    for code in codes:
        example = problem_document.problem_document(
            status, code, WHEN[code], request_id="d3184d332ee1ffda30db14a0"
        )
        yield code, {"value": example}
