"""The shape of config/models.json: its fields, their types and bounds."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from mes.domain import normalise
from mes.errors import Mistake

_A_DAY = 86_400

# What may stand in a name that Ollama would take; it also keeps a name from being a path.
_NAME = re.compile(r"(?!.*(\.\.|//))[A-Za-z0-9._:/-]{1,200}\Z")


def _is_name(text: str) -> bool:
    if _NAME.match(text):
        return True
    raise ValidationError(
        "is not a model name; use 1 to 200 of A-Z a-z 0-9 . _ : / - without '..' or '//'"
    )


class _Number(fields.Float):
    """A JSON number; a text that looks like one is a mistake."""

    def _validated(self, value: Any) -> Any:
        if not isinstance(value, int | float):
            raise self.make_error("invalid")
        return super()._validated(value)


class _Boolean(fields.Boolean):
    """A JSON true or false; 1 and "yes" are mistakes."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


def _field(kind: Any, expects: str, **more: Any) -> Any:
    wrong = ("invalid", "too_large", "special", "null", "invalid_utf8")
    told = dict.fromkeys(wrong, f"is not {expects}")
    return kind(error_messages=told, metadata={"expects": expects}, **more)


def _whole(least: int, most: int) -> Any:
    expects = f"a whole number from {least} to {most}"
    check = validate.Range(least, most, error=f"is not {expects}")
    return _field(fields.Integer, expects, strict=True, validate=check)


def _number(least: float, most: float, *, above: bool = False, **more: Any) -> Any:
    expects = f"a number {'above' if above else 'from'} {least:g} to {most:g}"
    check = validate.Range(least, most, min_inclusive=not above, error=f"is not {expects}")
    return _field(_Number, expects, validate=check, **more)


def _boolean() -> Any:
    return _field(_Boolean, "true or false")


def _text(most: int) -> Any:
    expects = f"a text of 1 to {most} characters"
    check = validate.Length(1, most, error=f"is not {expects}")
    return _field(fields.String, expects, validate=check)


def _name(**more: Any) -> Any:
    return _field(fields.String, "a model name", validate=_is_name, **more)


def _texts(most: int) -> Any:
    expects = f"a list of at most {most} texts"
    check = validate.Length(0, most, error=f"is not {expects}")
    return _field(fields.List, expects, cls_or_instance=_text(200), validate=check)


class OptionsSchema(Schema):
    """The runtime's options that a model may fix; the rest are set by requests or by MES."""

    num_ctx = _whole(4, 10_000_000)
    num_batch = _whole(1, 65_536)
    num_gpu = _whole(-1, 1000)
    main_gpu = _whole(0, 63)
    num_thread = _whole(0, 1024)
    use_mmap = _boolean()
    draft_num_predict = _whole(0, 64)
    top_k = _whole(0, 1_000_000)
    top_p = _number(0, 1)
    min_p = _number(0, 1)
    typical_p = _number(0, 1)
    repeat_penalty = _number(0, 10)
    repeat_last_n = _whole(0, 1_000_000)
    presence_penalty = _number(-2, 2)
    frequency_penalty = _number(-2, 2)
    seed = _whole(-1, 2**31 - 1)
    stop = _texts(16)
    num_keep = _whole(-1, 10_000_000)


class _SharedSchema(Schema):
    """What a model may say for itself, and the defaults for all."""

    max_concurrent = _whole(1, 1000)
    max_queue = _whole(0, 100_000)
    max_tokens = _whole(1, 10_000_000)
    timeout = _number(0, _A_DAY, above=True, allow_none=True)
    supports_json_mode = _boolean()
    max_attempts = _whole(1, 4)
    context_window = _whole(4, 10_000_000)
    options = fields.Nested(OptionsSchema)


class DefaultsSchema(_SharedSchema):
    temperature = _number(0, 2)


class ModelSchema(_SharedSchema):
    display_name = _text(200)
    enabled = _boolean()
    preload = _boolean()
    pinned = _boolean()
    size_gb = _number(0, 100_000, above=True)
    min_memory_gb = _number(0, 100_000)
    default_temperature = _number(0, 2)
    ollama_tag = _name()

    @validates_schema
    def _the_window_is_said_once(self, data: dict[str, Any], **_: Any) -> None:
        window = data.get("context_window")
        num_ctx = data.get("options", {}).get("num_ctx")
        if None not in (window, num_ctx) and window != num_ctx:
            problem = f"differs from context_window={window}; keep one"
            raise ValidationError({"options": {"num_ctx": [problem]}})


class CatalogSchema(Schema):
    models = fields.Dict(keys=_name(), values=fields.Nested(ModelSchema), required=True)
    defaults = fields.Nested(DefaultsSchema, load_default=dict)

    @validates_schema(skip_on_field_errors=False, pass_original=True)
    def _names_are_apart(self, data: Any, original: Any, **_: Any) -> None:
        models = original.get("models") if isinstance(original, dict) else None
        if isinstance(models, dict) and (errors := _taken_twice(models)):
            raise ValidationError({"models": errors})


def _taken_twice(models: dict[str, Any]) -> dict[str, Any]:
    """Two names that Ollama takes for the same one would be two books about one model."""
    tags = {each: _tag(each, entry) for each, entry in models.items()}
    ids_taken = Counter(map(normalise, models))
    tags_taken = Counter(tags.values())
    same_tag = {
        each: {"ollama_tag": [f"{tag} is the tag of another model too; keep one"]}
        for each, tag in tags.items()
        if tags_taken[tag] > 1
    }
    same_id = {
        each: ["is the id of another model too, as Ollama reads it; keep one"]
        for each in models
        if ids_taken[normalise(each)] > 1
    }
    return {**same_tag, **same_id}


def _tag(model_id: str, entry: Any) -> str:
    tag = entry.get("ollama_tag") if isinstance(entry, dict) else None
    return normalise(tag if isinstance(tag, str) else model_id)


_ROOMS = (CatalogSchema, DefaultsSchema, ModelSchema, OptionsSchema)
_KNOWN = {name for room in _ROOMS for name in room().fields}

_TOLD = {
    "Missing data for required field.": 'is missing; add it: {"models": {"<id>": {}}}',
    "Invalid input type.": "is not a JSON object; write {...}",
    "Not a valid mapping type.": "is not a JSON object; write {...}",
    "Field may not be null.": "is null; remove it, or write {...}",
}


def catalog_mistakes(messages: Any, pointer: str = "") -> list[Mistake]:
    """What marshmallow complains of, as pointers into the file."""
    if isinstance(messages, dict):
        return [
            mistake
            for key, inner in messages.items()
            for mistake in catalog_mistakes(inner, _below(pointer, str(key)))
        ]
    return [Mistake(pointer, _told(text, pointer)) for text in messages]


def _told(text: str, pointer: str) -> str:
    if text != "Unknown field.":
        return _TOLD.get(text, text)
    name = pointer.rpartition("/")[2]
    close = difflib.get_close_matches(name, _KNOWN - {name}, n=1)
    return f"is not known here; {f'did you mean {close[0]}?' if close else 'remove it'}"


def _below(pointer: str, key: str) -> str:
    # Marshmallow puts "key" and "value" between a dictionary's key and what is wrong with it.
    inside_models = pointer.count("/") == 2 and pointer.startswith("/models/")
    if key == "_schema" or (inside_models and key in ("key", "value")):
        return pointer
    return f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"
