"""The shape: does JSON that somebody may have tampered with fit the types it is read into?"""

from __future__ import annotations

import dataclasses
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

# What is counted here stays far below it; a float holds every integer up to it.
_MOST = 2**53


def fits(value: Any, hint: Any) -> bool:
    """Is it such a value, down to the last field? Numbers must be sane: no NaN, none below 0."""
    if dataclasses.is_dataclass(hint):
        return has_fields(value, get_type_hints(hint))
    if get_origin(hint) is dict:
        return isinstance(value, dict) and _all_fit(value.values(), get_args(hint)[1])
    if get_origin(hint) is list:
        return isinstance(value, list) and _all_fit(value, get_args(hint)[0])
    if isinstance(hint, UnionType):
        return any(fits(value, each) for each in get_args(hint))
    if hint in (int, float):
        return type(value) in (int, hint) and 0 <= value < _MOST
    return type(value) is hint


def has_fields(value: Any, hints: dict[str, Any]) -> bool:
    """Is it an object with these fields and no others?"""
    named = isinstance(value, dict) and value.keys() == hints.keys()
    return named and all(fits(value[name], hint) for name, hint in hints.items())


def _all_fit(values: Any, hint: Any) -> bool:
    return all(fits(value, hint) for value in values)
