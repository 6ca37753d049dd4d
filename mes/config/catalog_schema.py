"""The schema of config/models.json: its fields with their types and bounds."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from mes.domain import normalise
from mes.domain.json_pointer import json_pointer, pointer_steps
from mes.errors import Mistake, format_number

_ONE_DAY_SECONDS = 86_400

# The characters that Ollama accepts in a name. The pattern also excludes paths.
_MODEL_NAME = re.compile(r"(?!.*(\.\.|//))[A-Za-z0-9._:/-]{1,200}\Z")


def _check_model_name(text: str) -> bool:
    if _MODEL_NAME.match(text):
        return True
    raise ValidationError(
        "is not a model name; use 1 to 200 characters from A-Z a-z 0-9 . _ : / - without '..' "
        "or '//'"
    )


class _Number(fields.Float):
    """A JSON number; a string with digits is invalid."""

    def _validated(self, value: Any) -> Any:
        if not isinstance(value, int | float):
            raise self.make_error("invalid")
        return super()._validated(value)


class _Boolean(fields.Boolean):
    """A JSON true or false; 1 and "yes" are invalid."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


def _field(kind: Any, expected: str, **options: Any) -> Any:
    """Return a field with the same message for every kind of invalid value."""
    problems = ("invalid", "too_large", "special", "null", "invalid_utf8")
    messages = dict.fromkeys(problems, f"is not {expected}")
    return kind(error_messages=messages, metadata={"expects": expected}, **options)


def _integer(minimum: int, maximum: int) -> Any:
    expected = f"a whole number from {minimum} to {maximum}"
    check = validate.Range(minimum, maximum, error=f"is not {expected}")
    return _field(fields.Integer, expected, strict=True, validate=check)


def _number(minimum: float, maximum: float, *, exclusive: bool = False, **options: Any) -> Any:
    """Return a field for a number; with `exclusive` the minimum itself is invalid."""
    low, high = format_number(minimum), format_number(maximum)
    expected = f"a number {'above' if exclusive else 'from'} {low} to {high}"
    check = validate.Range(
        minimum, maximum, min_inclusive=not exclusive, error=f"is not {expected}"
    )
    return _field(_Number, expected, validate=check, **options)


def _boolean() -> Any:
    return _field(_Boolean, "true or false")


def _string(max_length: int) -> Any:
    expected = f"a string of 1 to {max_length} characters"
    check = validate.Length(1, max_length, error=f"is not {expected}")
    return _field(fields.String, expected, validate=check)


def _model_name() -> Any:
    return _field(fields.String, "a model name", validate=_check_model_name)


def _strings(max_length: int) -> Any:
    expected = f"a list of at most {max_length} strings"
    check = validate.Length(0, max_length, error=f"is not {expected}")
    return _field(fields.List, expected, cls_or_instance=_string(200), validate=check)


class OptionsSchema(Schema):
    """The runtime's options that the catalog may set; requests or MES set the others."""

    num_ctx = _integer(4, 10_000_000)
    num_batch = _integer(1, 65_536)
    num_gpu = _integer(-1, 1000)
    main_gpu = _integer(0, 63)
    num_thread = _integer(0, 1024)
    use_mmap = _boolean()
    draft_num_predict = _integer(0, 64)
    top_k = _integer(0, 1_000_000)
    top_p = _number(0, 1)
    min_p = _number(0, 1)
    typical_p = _number(0, 1)
    repeat_penalty = _number(0, 10)
    repeat_last_n = _integer(0, 1_000_000)
    presence_penalty = _number(-2, 2)
    frequency_penalty = _number(-2, 2)
    seed = _integer(-1, 2**31 - 1)
    stop = _strings(16)
    num_keep = _integer(-1, 10_000_000)


class _SharedSchema(Schema):
    """The fields that both a model and the defaults may have."""

    max_concurrent = _integer(1, 1000)
    max_queue = _integer(0, 100_000)
    max_tokens = _integer(1, 10_000_000)
    timeout = _number(0, _ONE_DAY_SECONDS, exclusive=True, allow_none=True)
    supports_json_mode = _boolean()
    max_attempts = _integer(1, 4)
    context_window = _integer(4, 10_000_000)
    options = fields.Nested(OptionsSchema)


class DefaultsSchema(_SharedSchema):
    temperature = _number(0, 2)


class ModelSchema(_SharedSchema):
    display_name = _string(200)
    enabled = _boolean()
    preload = _boolean()
    pinned = _boolean()
    size_gb = _number(0, 100_000, exclusive=True)
    min_memory_gb = _number(0, 100_000)
    default_temperature = _number(0, 2)
    ollama_tag = _model_name()

    @validates_schema
    def _check_one_context_window(self, data: dict[str, Any], **_: Any) -> None:
        context_window = data.get("context_window")
        num_ctx = data.get("options", {}).get("num_ctx")
        if None not in (context_window, num_ctx) and context_window != num_ctx:
            message = f"differs from context_window={context_window}; keep one of them"
            raise ValidationError({"options": {"num_ctx": [message]}})


class CatalogSchema(Schema):
    models = fields.Dict(keys=_model_name(), values=fields.Nested(ModelSchema), required=True)
    defaults = fields.Nested(DefaultsSchema, load_default=dict)

    @validates_schema(skip_on_field_errors=False, pass_original=True)
    def _check_names_are_unique(self, data: Any, original: Any, **_: Any) -> None:
        models = original.get("models") if isinstance(original, dict) else None
        if isinstance(models, dict) and (errors := _duplicates(models)):
            raise ValidationError({"models": errors})


def _duplicates(models: dict[str, Any]) -> dict[str, Any]:
    """Return the messages about ids and tags that name the same model for Ollama.

    One model must not have two entries, because each would count its own requests.
    """
    tags = {model_id: _tag(model_id, entry) for model_id, entry in models.items()}
    id_counts = Counter(map(normalise, models))
    tag_counts = Counter(tags.values())
    same_tag = {
        model_id: {"ollama_tag": [f"{tag} is also the tag of another model; keep one of them"]}
        for model_id, tag in tags.items()
        if tag_counts[tag] > 1
    }
    same_id = {
        model_id: ["names the same model for Ollama as another id; keep one of them"]
        for model_id in models
        if id_counts[normalise(model_id)] > 1
    }
    return {**same_tag, **same_id}


def _tag(model_id: str, entry: Any) -> str:
    tag = entry.get("ollama_tag") if isinstance(entry, dict) else None
    return normalise(tag if isinstance(tag, str) else model_id)


_SCHEMAS = (CatalogSchema, DefaultsSchema, ModelSchema, OptionsSchema)
_FIELD_NAMES = {name for schema in _SCHEMAS for name in schema().fields}

_MESSAGES = {
    "Missing data for required field.": 'is missing; add it: {"models": {"<id>": {}}}',
    "Invalid input type.": "is not a JSON object; write {...}",
    "Not a valid mapping type.": "is not a JSON object; write {...}",
    "Field may not be null.": "is null; remove it, or write {...}",
}


def catalog_mistakes(messages: Any, pointer: str = "") -> list[Mistake]:
    """Return the messages of marshmallow as a list, with JSON pointers into the file."""
    if isinstance(messages, dict):
        return [
            mistake
            for key, inner in messages.items()
            for mistake in catalog_mistakes(inner, _child_pointer(pointer, str(key)))
        ]
    return [Mistake(pointer, _detail(message, pointer)) for message in messages]


def _detail(message: str, pointer: str) -> str:
    if message != "Unknown field.":
        return _MESSAGES.get(message, message)
    name = pointer_steps(pointer)[-1]
    close = difflib.get_close_matches(name, _FIELD_NAMES - {name}, n=1)
    return f"is not a known field; {f'did you mean {close[0]}?' if close else 'remove it'}"


def _child_pointer(pointer: str, key: str) -> str:
    # Marshmallow inserts "key" or "value" between the key of a dictionary and its messages.
    inside_models = pointer.count("/") == 2 and pointer.startswith("/models/")
    if key == "_schema" or (inside_models and key in ("key", "value")):
        return pointer
    return pointer + json_pointer([key])
