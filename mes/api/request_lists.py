"""Lists in requests: their greatest lengths, which are checked before any element is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from marshmallow import ValidationError, fields, validate

MAX_MESSAGES = 4096
MAX_PARTS = 1024
MAX_IMAGES = 256
MAX_TOOLS = 512
MAX_TOOL_CALLS = 256

# Each reported mistake costs a search for similar names and a hundred bytes of the response, and
# a body has room for a hundred thousand of them.
MAX_MISTAKES = 20

_MESSAGES: dict[str, Any] = {
    "required": "is required",
    "null": "must not be null",
    "invalid": "must be a list",
}


class Items(fields.List[Any]):
    """A list of at most `most` elements.

    A megabyte has room for a hundred thousand elements, and loading an invalid one takes as long as
    parsing a kilobyte. Therefore a list that is too long is refused before its elements are loaded,
    and loading ends after more invalid elements than are reported.
    """

    def __init__(self, inner: Any, *, most: int, **options: Any) -> None:
        self.most = most
        checks = options.pop("validate", ())
        checks = list(checks) if isinstance(checks, Sequence) else [checks]
        super().__init__(
            inner,
            validate=[validate.Length(max=most), *checks],
            error_messages=_MESSAGES,
            **options,
        )

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, list):
            raise self.make_error("invalid")
        check_length(value, self.most)
        return self._load_each(value, kwargs)

    def _load_each(self, value: list[Any], kwargs: dict[str, Any]) -> list[Any]:
        loaded: list[Any] = []
        mistakes: dict[int, Any] = {}
        for index, each in enumerate(value):
            try:
                loaded.append(self.inner.deserialize(each, **kwargs))
            except ValidationError as exc:
                mistakes[index] = exc.messages
                if len(mistakes) > MAX_MISTAKES:
                    break
        if mistakes:
            raise ValidationError(mistakes)
        return loaded


def check_length(value: Sequence[Any], most: int) -> None:
    """Raise ValidationError for a list that is longer than `most`."""
    if len(value) > most:
        raise ValidationError(f"must have at most {most} elements; this list has {len(value)}")
