"""Operation docs: the responses and errors of a view, declared beside it for /openapi.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

from marshmallow import Schema

from mes import errors

View = TypeVar("View", bound=Callable[..., Any])

# Errors of loading a model, and of waiting for a permit.
LOAD_ERRORS = (
    errors.ModelNotPulled,
    errors.ModelUnavailable,
    errors.RuntimeReplyInvalid,
    errors.RuntimeUnavailable,
    errors.LoadTimeout,
)
TURN_ERRORS = (
    errors.QueueFull,
    errors.QueueTimeout,
    errors.StateDirFull,
    errors.StateLocked,
    errors.ShuttingDown,
    *LOAD_ERRORS,
)
# Errors of all requests that run a model.
RUN_ERRORS = (
    errors.ModelNotFound,
    errors.PromptTooLong,
    *TURN_ERRORS,
    errors.GenerationAborted,
    errors.GenerationTimeout,
)


JSON, NDJSON, EVENT_STREAM = "application/json", "application/x-ndjson", "text/event-stream"


@dataclass(frozen=True)
class OperationDoc:
    """The documentation of one view.

    Args:
        content: response schemas by media type; each is a marshmallow schema, or a JSON Schema
            that may contain marshmallow schemas.
        statuses: statuses of these responses.
        raises: classes of errors.
        request: schema of the request body.
        scope: scope of the key that is needed; None if no key is needed.
    """

    content: Mapping[str, Any] = field(default_factory=dict)
    statuses: tuple[int, ...] = (200,)
    raises: tuple[type[Exception], ...] = ()
    request: Schema | None = None
    scope: str | None = None


def documented(
    content: type[Schema] | Mapping[str, Any],
    *,
    statuses: tuple[int, ...] = (200,),
    raises: tuple[type[Exception], ...] = (),
    scope: str | None = None,
) -> Callable[[View], View]:
    """Return a decorator that documents a view.

    `content` is the schema of a JSON response, or a mapping with a schema for each media type;
    the others are those of `Operation`.
    """
    by_type = content if isinstance(content, Mapping) else {JSON: content}
    operation = OperationDoc(by_type, statuses, raises, scope=scope)

    def decorate(view: View) -> View:
        return _attach(view, operation)

    return decorate


def extend_operation(view: View, *, raises: tuple[type[Exception], ...], **changes: Any) -> View:
    """Add the errors of a decorator to the documentation of its view, and change other fields."""
    operation = operation_of(view) or OperationDoc()
    return _attach(view, replace(operation, raises=(*operation.raises, *raises), **changes))


def operation_of(view: Callable[..., Any]) -> OperationDoc | None:
    """Return the documentation of the view; None for a view without one."""
    return cast("OperationDoc | None", getattr(view, "operation", None))


def lines_schema(*lines: Any) -> dict[str, Any]:
    """Return the schema of a stream of JSON lines: in OpenAPI, an array with an item a line."""
    return {"type": "array", "items": {"oneOf": list(lines)}}


def events_schema(*chunks: Any, last: str) -> dict[str, Any]:
    """Return the schema of server-sent events: in OpenAPI, objects with JSON in a string `data`."""
    content = {"contentMediaType": JSON, "contentSchema": {"oneOf": list(chunks)}}
    data = {"anyOf": [{"const": last}, {"type": "string", **content}]}
    return {"type": "object", "properties": {"data": data}, "required": ["data"]}


def _attach(view: View, operation: OperationDoc) -> View:
    # functools.wraps copies the attribute to the decorators around the view.
    view.operation = operation  # type: ignore[attr-defined]
    return view
