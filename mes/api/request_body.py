"""Request bodies: strict JSON, then a marshmallow schema, then a dataclass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from difflib import get_close_matches
from functools import wraps
from itertools import islice
from typing import Any

from flask import request
from gunicorn.http.errors import ParseException
from marshmallow import Schema, ValidationError
from werkzeug.exceptions import (
    ClientDisconnected,
    RequestEntityTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
)

from mes.api.operation_docs import extend_operation
from mes.errors import MalformedRequest, Mistake, RequestInvalid
from mes.strict_json import NotJson, parse_json

View = Callable[..., Any]

_REFUSALS = (
    MalformedRequest,
    RequestTimeout,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    RequestInvalid,
)

# Each one told costs a search and a hundred bytes, and a body has room for a hundred thousand.
_MOST_MISTAKES = 20
_LONGEST_NAME = 200


def request_body(schema: Schema) -> Callable[[View], View]:
    """Hand the view what the schema makes of the request's body, as its last argument.

    Raises MalformedRequest, RequestInvalid; 408, 413 and 415 are the framework's exceptions.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def read_body(*args: Any, **kwargs: Any) -> Any:
            return view(*args, load_body(schema, _json()), **kwargs)

        return extend_operation(read_body, request=schema, raises=_REFUSALS)

    return decorate


def load_body(schema: Schema, document: Any) -> Any:
    """What the schema makes of a document. Raises RequestInvalid with the mistakes."""
    try:
        return schema.load(document)
    except ValidationError as exc:
        found = _mistakes(exc.messages_dict)
        mistakes = tuple(_with_suggestion(each, schema) for each in islice(found, _MOST_MISTAKES))
        told = [f"{m.pointer or 'the body'}: {m.detail}" for m in mistakes]
        more = ["and more"] if next(found, None) else []
        raise RequestInvalid("; ".join(told + more), mistakes=mistakes) from exc


def _with_suggestion(mistake: Mistake, schema: Schema) -> Mistake:
    """For a field that does not exist: the one that was probably meant."""
    name = mistake.pointer.removeprefix("/")
    # Of nested ones nothing is known here.
    close = (
        [] if "/" in name or name in schema.fields else get_close_matches(name, schema.fields, n=1)
    )
    if not close:
        return mistake
    return replace(mistake, detail=f"{mistake.detail}; did you mean {close[0]}?")


def _json() -> Any:
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("send the body as 'Content-Type: application/json'")
    if request.mimetype_params.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
        raise UnsupportedMediaType("JSON is UTF-8; leave the charset out")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("send the body as it is, without Content-Encoding")
    try:
        return parse_json(_data())
    except NotJson as exc:
        raise MalformedRequest(f"the body is not JSON: {exc}") from exc


def _data() -> bytes:
    """The whole body."""
    try:
        data = request.get_data(cache=False)
    except ClientDisconnected as exc:
        if isinstance(exc.__context__, TimeoutError):
            raise RequestTimeout("the body did not arrive in time; send it faster") from exc
        raise
    except ParseException as exc:
        raise MalformedRequest(f"the body is not well chunked: {exc}") from exc
    if request.content_length is None and len(data) == request.max_content_length:
        raise RequestEntityTooLarge  # the framework breaks off there and says nothing
    if not data:
        raise MalformedRequest("the body is empty; send a JSON object and its Content-Length")
    if request.content_length not in (None, len(data)):
        raise MalformedRequest("the body is shorter than its Content-Length")
    return data


def _mistakes(messages: Any, pointer: str = "") -> Iterator[Mistake]:
    if isinstance(messages, list):
        for detail in messages:
            yield from _mistakes(detail, pointer)
    elif isinstance(messages, dict):
        for step, inner in messages.items():
            name = str(step)[:_LONGEST_NAME]
            yield from _mistakes(inner, pointer if step == "_schema" else f"{pointer}/{name}")
    else:
        yield Mistake(pointer, str(messages))
