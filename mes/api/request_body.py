"""Request bodies: strict JSON, loaded by a marshmallow schema into a dataclass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from difflib import get_close_matches
from functools import wraps
from itertools import islice
from typing import Any

from flask import request
from marshmallow import Schema, ValidationError
from werkzeug.exceptions import (
    ClientDisconnected,
    RequestEntityTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
)

from mes.api.operation_docs import extend_operation
from mes.api.request_lists import MAX_MISTAKES
from mes.domain.json_pointer import json_pointer, pointer_steps
from mes.errors import MalformedRequest, Mistake, RequestInvalid
from mes.server.connection import BodyTooLarge, InvalidRequest
from mes.strict_json import NotJson, TooManyValues, parse_json

View = Callable[..., Any]

_BODY_ERRORS = (
    MalformedRequest,
    RequestTimeout,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    RequestInvalid,
)

_MAX_NAME_LENGTH = 200
# A value of one character becomes an object of up to a hundred bytes, which takes a microsecond.
_MAX_VALUES = 500_000


def request_body(schema: Schema) -> Callable[[View], View]:
    """Return a decorator that passes the loaded body to the view, as its last argument.

    The view then raises MalformedRequest and RequestInvalid, and werkzeug's exceptions with the
    statuses 408, 413 and 415.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def read_body(*args: Any, **kwargs: Any) -> Any:
            return view(*args, load_body(schema, _read_json()), **kwargs)

        return extend_operation(read_body, request=schema, raises=_BODY_ERRORS)

    return decorate


def load_body(schema: Schema, document: Any) -> Any:
    """Return the document, loaded by the schema. Raises RequestInvalid with all mistakes."""
    try:
        return schema.load(document)
    except ValidationError as exc:
        found = _mistakes(exc.messages_dict)
        mistakes = tuple(_with_suggestion(each, schema) for each in islice(found, MAX_MISTAKES))
        details = [f"{m.pointer or 'the body'}: {m.detail}" for m in mistakes]
        more = ["and more"] if next(found, None) else []
        raise RequestInvalid("; ".join(details + more), mistakes=mistakes) from exc


def _with_suggestion(mistake: Mistake, schema: Schema) -> Mistake:
    """Add the most similar field to the detail of a mistake in a field that does not exist."""
    steps = pointer_steps(mistake.pointer)
    # The fields of nested schemas are not known here.
    is_known = len(steps) != 1 or steps[0] in schema.fields
    close = [] if is_known else get_close_matches(steps[0], schema.fields, n=1)
    if not close:
        return mistake
    return replace(mistake, detail=f"{mistake.detail}; did you mean {close[0]}?")


def _read_json() -> Any:
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("send the body as 'Content-Type: application/json'")
    if request.mimetype_params.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
        raise UnsupportedMediaType("send the body in UTF-8 and leave the charset out")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("send the body uncompressed, without Content-Encoding")
    try:
        return parse_json(_read_data(), max_values=_MAX_VALUES)
    except TooManyValues as exc:
        raise MalformedRequest(f"the body has {exc}; send several smaller requests") from exc
    except NotJson as exc:
        raise MalformedRequest(f"the body is not JSON: {exc}") from exc


def _read_data() -> bytes:
    """Return the body.

    Raises MalformedRequest, RequestTimeout and RequestEntityTooLarge.
    """
    try:
        data = request.get_data(cache=False)
    except RequestEntityTooLarge as exc:
        raise _too_large() from exc
    except ClientDisconnected as exc:
        if isinstance(exc.__context__, TimeoutError):
            raise RequestTimeout("the body did not arrive in time; send it faster") from exc
        raise
    except BodyTooLarge as exc:
        raise _too_large() from exc
    except InvalidRequest as exc:
        raise MalformedRequest(f"the chunked encoding of the body is invalid: {exc}") from exc
    if request.content_length is None and len(data) == request.max_content_length:
        raise _too_large()  # werkzeug cuts a chunked body there without an error
    if not data:
        raise MalformedRequest("the body is empty; send a JSON object and its Content-Length")
    if request.content_length not in (None, len(data)):
        raise MalformedRequest("the body is shorter than its Content-Length")
    return data


def _too_large() -> RequestEntityTooLarge:
    length, limit = request.content_length, request.max_content_length
    size = "a body in chunks" if length is None else f"a body of {length} bytes"
    return RequestEntityTooLarge(
        f"{size} exceeds the limit of {limit} bytes; shorten it, for example with smaller images, "
        "or ask the operator to raise MAX_BODY_BYTES"
    )


def _mistakes(messages: Any, pointer: str = "") -> Iterator[Mistake]:
    if isinstance(messages, list):
        for detail in messages:
            yield from _mistakes(detail, pointer)
    elif isinstance(messages, dict):
        for step, inner in messages.items():
            name = str(step)[:_MAX_NAME_LENGTH]
            is_own = step == "_schema"
            yield from _mistakes(inner, pointer if is_own else pointer + json_pointer([name]))
    else:
        yield Mistake(pointer, str(messages))
