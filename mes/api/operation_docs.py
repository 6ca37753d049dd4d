"""Promises: what a view says of its answers and errors, for the document at /openapi.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

from marshmallow import Schema

from mes import errors

View = TypeVar("View", bound=Callable[..., Any])

# What keeps a model from being loaded, and what keeps a request from having its turn.
LOAD_ERRORS = (
    errors.ModelNotPulled,
    errors.ModelUnavailable,
    errors.RuntimeReplyInvalid,
    errors.RuntimeUnavailable,
    errors.LoadTimeout,
)
TURN_ERRORS = (errors.QueueFull, errors.QueueTimeout, errors.ShuttingDown, *LOAD_ERRORS)
# What keeps a model from answering whatever it is asked, its turn included.
RUN_ERRORS = (
    errors.ModelNotFound,
    errors.PromptTooLong,
    *TURN_ERRORS,
    errors.GenerationAborted,
    errors.GenerationTimeout,
)


JSON, NDJSON, EVENT_STREAM = "application/json", "application/x-ndjson", "text/event-stream"


@dataclass(frozen=True)
class Operation:
    """What a view answers, by media type, and with which statuses; what it asks for and refuses.

    A schema is marshmallow's, or a JSON Schema in which marshmallow's may stand.
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
    """Say what the view answers: a schema of JSON, or one for each media type."""
    by_type = content if isinstance(content, Mapping) else {JSON: content}
    operation = Operation(by_type, statuses, raises, scope=scope)

    def decorate(view: View) -> View:
        return _attach(view, operation)

    return decorate


def extend_operation(view: View, *, raises: tuple[type[Exception], ...], **more: Any) -> View:
    """What a decorator adds to the promise of the view inside of it."""
    own = operation_of(view) or Operation()
    return _attach(view, replace(own, raises=(*own.raises, *raises), **more))


def operation_of(view: Callable[..., Any]) -> Operation | None:
    """What the view promises; None where it has said nothing."""
    return cast("Operation | None", getattr(view, "operation", None))


def lines_schema(*kinds: Any) -> dict[str, Any]:
    """Lines of JSON, as OpenAPI writes them: an array with each line as an item."""
    return {"type": "array", "items": {"oneOf": list(kinds)}}


def events_schema(*kinds: Any, last: str) -> dict[str, Any]:
    """Server-sent events, as OpenAPI writes them: each an object whose data is JSON in a string."""
    content = {"contentMediaType": JSON, "contentSchema": {"oneOf": list(kinds)}}
    data = {"anyOf": [{"const": last}, {"type": "string", **content}]}
    return {"type": "object", "properties": {"data": data}, "required": ["data"]}


def _attach(view: View, operation: Operation) -> View:
    # functools.wraps hands an attribute on to whatever is wrapped around the view.
    view.operation = operation  # type: ignore[attr-defined]
    return view
