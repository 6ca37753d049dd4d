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
class Promise:
    """What a view answers, by media type, and with which statuses; what it asks for and refuses.

    A schema is marshmallow's, or a JSON Schema in which marshmallow's may stand.
    """

    content: Mapping[str, Any] = field(default_factory=dict)
    statuses: tuple[int, ...] = (200,)
    raises: tuple[type[Exception], ...] = ()
    request: Schema | None = None
    scope: str | None = None


def promises(
    content: type[Schema] | Mapping[str, Any],
    *,
    statuses: tuple[int, ...] = (200,),
    raises: tuple[type[Exception], ...] = (),
    scope: str | None = None,
) -> Callable[[View], View]:
    """Say what the view answers: a schema of JSON, or one for each media type."""
    by_type = content if isinstance(content, Mapping) else {JSON: content}
    promise = Promise(by_type, statuses, raises, scope=scope)

    def decorate(view: View) -> View:
        return _with(view, promise)

    return decorate


def adds(view: View, *, raises: tuple[type[Exception], ...], **more: Any) -> View:
    """What a decorator adds to the promise of the view inside of it."""
    own = promise_of(view) or Promise()
    return _with(view, replace(own, raises=(*own.raises, *raises), **more))


def promise_of(view: Callable[..., Any]) -> Promise | None:
    """What the view promises; None where it has said nothing."""
    return cast("Promise | None", getattr(view, "promise", None))


def lines_of(*kinds: Any) -> dict[str, Any]:
    """Lines of JSON, as OpenAPI writes them: an array with each line as an item."""
    return {"type": "array", "items": {"oneOf": list(kinds)}}


def events_of(*kinds: Any, last: str) -> dict[str, Any]:
    """Server-sent events, as OpenAPI writes them: each an object whose data is JSON in a string."""
    content = {"contentMediaType": JSON, "contentSchema": {"oneOf": list(kinds)}}
    data = {"anyOf": [{"const": last}, {"type": "string", **content}]}
    return {"type": "object", "properties": {"data": data}, "required": ["data"]}


def _with(view: View, promise: Promise) -> View:
    # functools.wraps hands an attribute on to whatever is wrapped around the view.
    view.promise = promise  # type: ignore[attr-defined]
    return view
