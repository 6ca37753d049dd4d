"""Texts about schemas: descriptions of violations and of rejected schemas, and prompts.

The texts are short, and no text contains the whole answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jsonschema_rs

from mes.domain import SCHEMA_POINTER, Prompt, ValidationResult, Violation
from mes.domain.json_pointer import json_pointer
from mes.errors import Mistake, PromptTooLong, SchemaInvalid, SchemaUnsafe
from mes.structured.keywords import is_applicator
from mes.structured.nearest_value import nearest_value
from mes.structured.normalize import original_path

Error = jsonschema_rs.ValidationError

# The validator writes this in its messages in place of the value.
VALUE = "the value"

_LONGEST_DETAIL = 200
# With the default prefix in front, the pointer is as long as the longest detail.
_LONGEST_POINTER = _LONGEST_DETAIL - len(SCHEMA_POINTER)


def describe_violation(error: Error) -> Violation:
    """Return the pointer into the answer, the violated keyword and a description."""
    pointer = shorten(json_pointer(error.instance_path))
    return Violation(pointer, _keyword(error), shorten(_detail(error)))


def _keyword(error: Error) -> str:
    name = str(error.kind.name)
    if name != "falseSchema":
        return name
    # `false` is not a keyword. The keyword that contains it explains why no value is allowed.
    steps = (str(step) for step in reversed(error.schema_path))
    return next((step for step in steps if is_applicator(step)), "false")


def _detail(error: Error) -> str:
    if error.kind.name == "falseSchema":
        return f"{VALUE} is not allowed here"
    nearest = _nearest_error(getattr(error.kind, "context", ()))
    if nearest is None:
        return _message(error)
    pointer = json_pointer(nearest.instance_path) or "there"
    prefix = f"{VALUE} fits none of the alternatives; nearest: at {pointer} "
    return prefix + _message(nearest, _LONGEST_DETAIL - min(len(prefix), _LONGEST_DETAIL // 2))


def _message(error: Error, most: int = _LONGEST_DETAIL) -> str:
    """Return the validator's message; of an enum, with the value that was most likely meant."""
    if error.kind.name != "enum":
        return str(error.message)
    value = nearest_value(error.instance, getattr(error.kind, "options", ()))
    suffix = "" if value is None else f"; nearest: {json.dumps(value, ensure_ascii=False)}"
    return shorten(str(error.message), most - len(suffix)) + suffix


def _nearest_error(alternatives: Sequence[Sequence[Error]]) -> Error | None:
    """Return the deepest error of the alternative that was most likely intended.

    Each alternative is the sequence of its errors.
    """
    failed = [errors for errors in alternatives if errors]
    if not failed:
        return None
    intended: Sequence[Error] = max(failed, key=_likelihood)
    return max(intended, key=_depth)


def _likelihood(errors: Sequence[Error]) -> tuple[bool, int, int]:
    """Return a sort key: constants distinguish alternatives first, then the depth of the errors."""
    fails_constant = any(error.kind.name in ("const", "enum") for error in errors)
    return not fails_constant, max(map(_depth, errors)), -len(errors)


def _depth(error: Error) -> int:
    return len(error.instance_path)


class SchemaProblem(Exception):
    """The reason why a schema is rejected, at a path relative to the schema.

    Only `check_schema` knows where in the request the schema is, so it turns the problem into a
    SchemaInvalid or SchemaUnsafe with `error_at`.
    """

    def __init__(
        self,
        error_class: type[SchemaInvalid] | type[SchemaUnsafe],
        summary: str,
        path: Iterable[Any],
        detail: str,
    ) -> None:
        super().__init__(detail)
        self._error_class = error_class
        self._summary = summary
        self._path = tuple(path)
        self._detail = shorten(detail)

    def error_at(self, prefix: str, document: Mapping[str, Any]) -> SchemaInvalid | SchemaUnsafe:
        """Return the error to raise.

        Args:
            prefix: the JSON pointer of the schema in the request.
            document: the schema as the client wrote it.
        """
        pointer = json_pointer(original_path(document, self._path))
        mistake = Mistake(prefix + shorten(pointer, _LONGEST_POINTER), self._detail)
        field = prefix.rpartition("/")[2] or "the schema"
        text = f"{field} {self._summary}: {mistake.pointer}: {mistake.detail}"
        return self._error_class(text, mistakes=(mistake,))


def schema_invalid(path: Iterable[Any], detail: str) -> SchemaProblem:
    """Return the problem of a document that is not a JSON Schema."""
    return SchemaProblem(SchemaInvalid, "is not a valid JSON Schema", path, detail)


def schema_unsafe(path: Iterable[Any], detail: str) -> SchemaProblem:
    """Return the problem of a valid schema whose use could hang, leak or cost too much."""
    return SchemaProblem(SchemaUnsafe, "cannot be used safely", path, detail)


def shorten(text: str, most: int = _LONGEST_DETAIL) -> str:
    """Return the text with at most `most` characters, so that it fits a log line and a prompt.

    An ellipsis replaces the omitted end. Lone surrogates, which UTF-8 cannot encode, are replaced.
    """
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    return text.encode("utf-8", "replace").decode()


def with_added_part(error: PromptTooLong, prompt: Prompt, added: int, *, at: str) -> PromptTooLong:
    """Return the error with the part of the prompt that describes the schema or the functions.

    Args:
        added: the length of this part, in characters.
        at: the JSON pointer to the schema, which the error points to if it is the larger part.
    """
    if not added:
        return error
    detail = (
        f"{error.detail}; {added} of its {prompt.characters} characters are the schema or the "
        "functions, which MES adds to the prompt in this decoding mode: make them shorter"
    )
    is_larger = 2 * added > prompt.characters
    pointers = [at] if is_larger else [mistake.pointer for mistake in error.mistakes]
    return PromptTooLong(detail, mistakes=tuple(Mistake(each, detail) for each in pointers))


_MOST_MISTAKES = 5
_LONGEST_ANSWER = 2_000


def with_schema(text: str, schema_text: str) -> str:
    """Return the prompt followed by the schema."""
    return f"{text}\n\nAnswer only with JSON that satisfies this JSON Schema:\n{schema_text}"


def with_schema_or_calls(text: str, schema_text: str) -> str:
    """Return the prompt followed by the schema of an answer that is no call of a function."""
    return (
        f"{text}\n\nCall functions if you need them. If you call none, answer only with JSON that "
        f"satisfies this JSON Schema:\n{schema_text}"
    )


def with_function(text: str, function: Mapping[str, Any]) -> str:
    """Return the prompt followed by the description of the function that has to be called."""
    description = function.get("description")
    if not description:
        return text
    return (
        f"{text}\n\nAnswer with the arguments of the function {function['name']}, as JSON. "
        f"The function: {description}"
    )


def with_functions(text: str, functions: Iterable[Mapping[str, Any]]) -> str:
    """Return the prompt followed by the functions of which one has to be called."""
    lines = "\n".join(map(_function_line, functions))
    return (
        f"{text}\n\nCall one of these functions:\n{lines}\n\nAnswer only with the call as JSON, "
        'such as {"name": "function", "arguments": {"parameter": "value"}}.'
    )


def _function_line(function: Mapping[str, Any]) -> str:
    properties = function.get("parameters", {}).get("properties")
    names = ", ".join(properties) if isinstance(properties, dict) else ""
    description = function.get("description")
    return f"- {function['name']}({names})" + (f": {description}" if description else "")


def with_feedback(text: str, answer: str, validation: ValidationResult) -> str:
    """Return the prompt followed by the last answer and its first mistakes, at most five."""
    return (
        f"{text}\n\nYour last answer was:\n{_cut(answer)}\n\n"
        f"It was not accepted:\n{_list_of_mistakes(validation)}\n\n"
        "Answer again, with the corrected JSON only."
    )


def with_call_feedback(text: str, answer: str, validation: ValidationResult) -> str:
    """Return the prompt followed by the last answer, which is not the call that is required."""
    said = f"Your last answer was:\n{_cut(answer)}\n\n" if answer else ""
    mistakes = _list_of_mistakes(validation)
    return f"{text}\n\n{said}It was not accepted:\n{mistakes}\n\nAnswer with a correct call."


def _list_of_mistakes(validation: ValidationResult) -> str:
    return "\n".join(
        f"- {each.pointer}: {each.detail}" if each.pointer else f"- {each.detail}"
        for each in validation.errors[:_MOST_MISTAKES]
    )


def _cut(answer: str) -> str:
    if len(answer) <= _LONGEST_ANSWER:
        return answer
    half = _LONGEST_ANSWER // 2
    return f"{answer[:half]} … {answer[-half:]}"
