"""Responses: what an operation answers, and every problem it can answer with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any, cast

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from werkzeug.exceptions import BadRequest, NotFound, NotImplemented

from mes import problem
from mes.api.openai import errors as openai
from mes.api.openai.shapes import OpenAiError
from mes.api.openapi.words import WHEN
from mes.api.problems import told_as
from mes.api.promises import JSON, Promise
from mes.api.shapes import Problem
from mes.errors import ClientDisconnected, MesError
from mes.server.refusals import KINDS

# What every request may meet, whatever its door: the server, the rules of HTTP, a bug.
_ANYWHERE = {
    *((kind.status, kind.code) for kind in KINDS.values()),
    *map(told_as, (BadRequest, NotImplemented, MesError)),
}

_REQUEST_ID = {
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


def responses(spec: APISpec, promise: Promise, path: str) -> dict[str, Any]:
    """The answers that are promised, then the problems, each registered with the document once."""
    told = {str(status): _answer(spec, promise, status) for status in promise.statuses}
    is_openai = path in openai.PATHS
    pairs = _problems(promise, has_parameters="{" in path)
    for status, codes in _by_status(pairs, openai.status_for if is_openai else int).items():
        if str(status) not in told:
            told[str(status)] = _registered(spec, status, codes, is_openai=is_openai)
    return dict(sorted(told.items()))


def _problems(promise: Promise, *, has_parameters: bool) -> set[tuple[int, str]]:
    """Statuses and codes. What tells of a caller that has gone is heard by nobody."""
    kinds = (*promise.raises, *([NotFound] if has_parameters else []))
    return _ANYWHERE | {told_as(kind) for kind in kinds if kind is not ClientDisconnected}


def _by_status(pairs: set[tuple[int, str]], shown_as: Callable[[int], int]) -> dict[int, list[str]]:
    statuses = sorted({shown_as(status) for status, _ in pairs})
    return {
        each: sorted(code for status, code in pairs if shown_as(status) == each)
        for each in statuses
    }


def _answer(spec: APISpec, promise: Promise, status: int) -> dict[str, Any]:
    return {
        "description": "Done" if status == 200 else "The same, with what is wrong",
        "headers": {"X-Request-ID": _REQUEST_ID},
        # Copies, because schemas in them are replaced by references.
        "content": {
            kind: {"schema": _resolved(spec, deepcopy(shape))}
            for kind, shape in promise.content.items()
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
        "headers": {"X-Request-ID": _REQUEST_ID, **_OF_PROBLEMS.get(status, {})},
        "content": content,
    }


def _of_problem(status: int, codes: list[str]) -> dict[str, Any]:
    narrowed = {"status": {"const": status}, "code": {"enum": codes}}
    return {
        problem.MIMETYPE: {
            "schema": {"allOf": [Problem, {"properties": narrowed}]},
            "examples": dict(_examples(status, codes)),
        }
    }


def _of_openai(status: int, codes: list[str]) -> dict[str, Any]:
    """What the server refuses before it knows the path is a problem at these doors too."""
    by_the_server = sorted({kind.code for kind in KINDS.values() if kind.status == status})
    narrowed = {"error": {"properties": {"code": {"enum": codes}}}}
    examples = {
        code: {"value": openai.translated(example["value"])}
        for code, example in _examples(status, codes)
    }
    schema = {"allOf": [OpenAiError, {"properties": narrowed}]}
    told = {JSON: {"schema": schema, "examples": examples}}
    return {**told, **(_of_problem(status, by_the_server) if by_the_server else {})}


def _examples(status: int, codes: Iterable[str]) -> Iterable[tuple[str, Any]]:
    for code in codes:
        example = problem.document(status, code, WHEN[code], request_id="d3184d332ee1ffda30db14a0")
        yield code, {"value": example}
