"""Responses: what an operation answers, and every problem it can answer with."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from apispec import APISpec
from werkzeug.exceptions import BadRequest, NotFound, NotImplemented

from mes import problem
from mes.api.openapi.words import WHEN
from mes.api.problems import told_as
from mes.api.promises import Promise
from mes.api.shapes import Problem
from mes.errors import CallerGone, MesError
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


def responses(spec: APISpec, promise: Promise, *, has_parameters: bool) -> dict[str, Any]:
    """The answers that are promised, then the problems, each registered with the document once."""
    told = {str(status): _answer(promise, status) for status in promise.statuses}
    for status, codes in _problems(promise, has_parameters).items():
        if str(status) not in told:
            told[str(status)] = _registered(spec, status, codes)
    return dict(sorted(told.items()))


def _problems(promise: Promise, has_parameters: bool) -> dict[int, list[str]]:
    """The codes of each status. What tells of a caller that has gone is heard by nobody."""
    kinds = (*promise.raises, *([NotFound] if has_parameters else []))
    pairs = _ANYWHERE | {told_as(kind) for kind in kinds if kind is not CallerGone}
    statuses = sorted({status for status, _ in pairs})
    return {each: sorted(code for status, code in pairs if status == each) for each in statuses}


def _answer(promise: Promise, status: int) -> dict[str, Any]:
    return {
        "description": "Done" if status == 200 else "The same, with what is wrong",
        "headers": {"X-Request-ID": _REQUEST_ID},
        # Copies, because schemas in them are replaced by references.
        "content": {kind: {"schema": deepcopy(shape)} for kind, shape in promise.content.items()},
    }


def _registered(spec: APISpec, status: int, codes: list[str]) -> dict[str, Any]:
    name = ".".join([str(status), *codes])
    if name not in spec.components.responses:
        spec.components.response(name, _of_problem(status, codes))
    return {"$ref": f"#/components/responses/{name}"}


def _of_problem(status: int, codes: list[str]) -> dict[str, Any]:
    narrowed = {"status": {"const": status}, "code": {"enum": codes}}
    return {
        "description": "; ".join(f"`{code}`: {WHEN[code]}" for code in codes),
        "headers": {"X-Request-ID": _REQUEST_ID, **_OF_PROBLEMS.get(status, {})},
        "content": {
            problem.MIMETYPE: {
                "schema": {"allOf": [Problem, {"properties": narrowed}]},
                "examples": dict(_examples(status, codes)),
            }
        },
    }


def _examples(status: int, codes: Iterable[str]) -> Iterable[tuple[str, Any]]:
    for code in codes:
        example = problem.document(status, code, WHEN[code], request_id="d3184d332ee1ffda30db14a0")
        yield code, {"value": example}
