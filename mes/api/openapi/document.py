"""The document: OpenAPI 3.1, made of the application's routes and of what their views promise."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import Flask
from marshmallow import Schema, fields
from werkzeug.routing import Rule

from mes import __version__
from mes.api.members import Answer
from mes.api.openapi.responses import responses
from mes.api.openapi.words import EXAMPLES, FIELDS, OVERVIEW, PARAMETERS
from mes.api.promises import Promise, promise_of

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
        spec.tag({"name": blueprint.name, "description": _about(blueprint.import_name)})
    with app.app_context():  # the bounds of some fields are settings
        for rule in app.url_map.iter_rules():
            _add(spec, rule, app.view_functions[rule.endpoint])
    return spec.to_dict()


def _add(spec: APISpec, rule: Rule, view: Callable[..., Any]) -> None:
    promise = promise_of(view)
    if promise is not None:
        spec.path(path=_path(rule), operations=_operations(spec, rule, view, promise))


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
    if not isinstance(field.parent, Answer) and field.name in FIELDS:
        shape["description"] = FIELDS[field.name]
    if field.allow_none and "type" in shape:
        kinds = shape["type"] if isinstance(shape["type"], list) else [shape["type"]]
        shape["type"] = [*kinds, "null"]
    return shape


def _about(module: str) -> str:
    """What the module of a blueprint says of itself, without its name."""
    return str(sys.modules[module].__doc__).partition(": ")[2]


def _path(rule: Rule) -> str:
    return _PARAMETER.sub(r"{\1}", rule.rule)


def _operations(
    spec: APISpec, rule: Rule, view: Callable[..., Any], promise: Promise
) -> dict[str, Any]:
    methods = sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
    return {method.lower(): _operation(spec, rule, view, promise) for method in methods}


def _operation(
    spec: APISpec, rule: Rule, view: Callable[..., Any], promise: Promise
) -> dict[str, Any]:
    summary, _, description = inspect.cleandoc(view.__doc__ or "").partition("\n")
    scopes = [] if promise.scope is None else [promise.scope]
    told = {
        "operationId": rule.endpoint.replace(".", "_"),
        "tags": [rule.endpoint.partition(".")[0]],
        "summary": summary.rstrip("."),
        "description": description.strip(),
        "parameters": [*map(_parameter, sorted(rule.arguments)), _REQUEST_ID],
        "requestBody": promise.request and _body(promise.request, rule.endpoint),
        "responses": responses(spec, promise, _path(rule)),
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
