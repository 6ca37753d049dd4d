"""Members: the fields of answers, declared in a line each."""

from __future__ import annotations

from typing import Any

from marshmallow import EXCLUDE, Schema, fields, validate


class ResponseSchema(Schema):
    """An answer. Members may be added to it, so that clients must bear with more of them."""

    class Meta:
        unknown = EXCLUDE


def member(kind: type[fields.Field[Any]], told: str, *inner: Any, **more: Any) -> Any:
    """A member that is always there; where there is nothing to tell, it is null."""
    metadata = {"description": told} if told else {}
    return kind(
        *inner,
        required=more.pop("required", True),
        allow_none=more.pop("null", False),
        metadata={**metadata, **more.pop("metadata", {})},
        **more,
    )


def text(told: str, **more: Any) -> Any:
    return member(fields.String, told, **more)


def one_of(words: tuple[str, ...], told: str, **more: Any) -> Any:
    return text(told, validate=validate.OneOf(words), **more)


def whole(told: str, **more: Any) -> Any:
    return member(fields.Integer, told, **more)


def number(told: str, **more: Any) -> Any:
    return member(fields.Float, told, **more)


def flag(told: str, **more: Any) -> Any:
    return member(fields.Boolean, told, **more)


def words(told: str, **more: Any) -> Any:
    return member(fields.List, told, fields.String(), **more)


def numbers(told: str, **more: Any) -> Any:
    return member(fields.List, told, fields.Integer(), **more)


def json_object(told: str, **more: Any) -> Any:
    return member(fields.Dict, told, **more)


def one(shape: type[Schema], told: str, **more: Any) -> Any:
    return member(fields.Nested, told, shape, **more)


def many(shape: type[Schema], told: str, **more: Any) -> Any:
    return member(fields.List, told, fields.Nested(shape), **more)
