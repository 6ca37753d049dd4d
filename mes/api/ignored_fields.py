"""Fields of a request that are accepted without effect, and their names for the response."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields

_MOST_NAMES = 64
_MOST_CHARACTERS = 100


class Ignored(fields.Field[Any]):
    """A parameter that is accepted with any value and has no effect on the answer."""

    shape: dict[str, Any] = {}

    def __init__(self) -> None:
        super().__init__(allow_none=True)


class NullOnly(Ignored):
    """A parameter that would change the answer and is not supported: it is accepted as null only.

    Args:
        remedy: the advice to the client, at the end of the error.
    """

    shape = {"enum": [None]}

    def __init__(self, remedy: str = "leave it out") -> None:
        super().__init__()
        self._remedy = remedy

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        raise ValidationError(f"is not supported; {self._remedy}")


def ignored_names(schema: Schema, document: Any) -> tuple[str, ...]:
    """Return the names of the document's members that have no effect.

    A name is written as the client wrote it, with a dot before a nested member and `[]` for each
    position in a list: `messages[].annotations`. Each name comes once, in order of appearance, at
    most 64 of them, each with at most 100 characters.

    Args:
        document: the JSON value before it was loaded by the schema.
    """
    names = dict.fromkeys(name[:_MOST_CHARACTERS] for name in _names_in(schema, document))
    return tuple(islice(names, _MOST_NAMES))


def _names_in(schema: Schema, document: Any) -> Iterator[str]:
    if not isinstance(document, dict):
        return
    declared = _fields_by_name(schema)
    ignores = getattr(schema, "ignores", _never)
    for name, value in document.items():
        field = declared.get(name)
        if field is None:
            if schema.unknown == EXCLUDE:
                yield name
        elif isinstance(field, Ignored) or ignores(name, document):
            yield name
        else:
            yield from (f"{name}{rest}" for rest in _names_below(field, value))


@lru_cache(maxsize=256)
def _fields_by_name(schema: Schema) -> dict[str, fields.Field[Any]]:
    """Return the fields by their names in a document."""
    return {each.data_key or name: each for name, each in schema.fields.items()}


def _names_below(field: fields.Field[Any], value: Any) -> Iterator[str]:
    """Yield the names below a member, each with the `.` or `[]` that it begins with."""
    if isinstance(field, fields.Nested):
        yield from (f".{name}" for name in _names_in(field.schema, value))
    elif isinstance(field, fields.List):
        for each in value if isinstance(value, list) else ():
            yield from (f"[]{rest}" for rest in _names_below(field.inner, each))
    else:
        yield from getattr(field, "ignored_names_below", _none)(value)


def _never(name: str, document: Any) -> bool:
    return False


def _none(value: Any) -> Iterator[str]:
    yield from ()
