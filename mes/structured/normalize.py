"""Older, loose and misspelt forms of JSON Schema, rewritten to what they mean.

A schema keeps its text and its hash. What is checked, validated against and sent to the runtime is
the normalized document.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import quote, unquote

from mes.domain.json_pointer import pointer_steps
from mes.structured.keywords import REFERENCES, inner_schemas, is_applicator

DEFAULT_DIALECT = "https://json-schema.org/draft/2020-12/schema"
DRAFT_4 = "http://json-schema.org/draft-04/schema"

_DIALECT = re.compile(
    r"(?:https?://)?(?:www\.)?json-schema\.org/?"
    r"(?:draft-?0?(?P<old>[4567])|draft/(?P<new>2019-09|2020-12))?(?:/schema)?(?:\.json)?[/#]*",
    re.IGNORECASE,
)
# Draft 5 is draft 4 with corrections.
_OLD = {"4": "04", "5": "04", "6": "06", "7": "07"}

# Null means that the keyword is absent. Of `type`, null may as well mean the type "null".
_NEVER_NULL = {
    "$schema", "$id", "id", "$comment", "title", "description", "format", "pattern", "required",
    "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength",
    "maxLength", "minItems", "maxItems", "uniqueItems", "minContains", "maxContains",
    "minProperties", "maxProperties", "dependentRequired", "examples", "deprecated", "readOnly",
    "writeOnly", "contentEncoding", "contentMediaType", *REFERENCES,
}  # fmt: skip
# All keywords that may be rewritten, other than those that are null.
_REWRITTEN = {
    "$schema", "exclusiveMinimum", "exclusiveMaximum", "items", "dependencies", *REFERENCES
}  # fmt: skip
# `%` stays as it is where it begins an escape.
_LITERAL_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SAFE_IN_FRAGMENT = "/%~!$&'()*+,;=:@?-._"

# The forms that are rewritten, and sometimes others that look like them. Most schemas have none.
_MAY_BE_NEEDED = re.compile(
    r":null[,}]"
    r'|"exclusiveM(?:in|ax)imum":[tf]|"items":\[|"dependencies":'
    r'|"\$schema":(?!"(?:http://json-schema\.org/draft-0[467]/schema#?'
    r'|https://json-schema\.org/draft/20(?:19-09|20-12)/schema)")'
    r"""|"\$(?:ref|dynamicRef|recursiveRef)":"[^"]*[^"\w/~!$&'()*+,;=:@?.#-]""",
    re.ASCII,
)

Schema = dict[str, Any]


def is_needed(text: str) -> bool:
    """Return whether a schema, as compact JSON text, may have a form that `normalize` rewrites."""
    return _MAY_BE_NEEDED.search(text) is not None


def normalize(document: Schema, *, most: int = 5_000) -> None:
    """Rewrite the document in place. A form with an unclear meaning stays as it is.

    These forms are rewritten: addresses of dialects with another scheme or ending; keywords that
    are null; references with characters that a URI must escape; `exclusiveMinimum: true`; and,
    except under an older dialect, lists under `items`, and `dependencies` where no dialect is
    named. After `most` sub-schemas the rest stays as it is.
    """
    declares_dialect = isinstance(document.get("$schema"), str)
    seen: set[int] = set()
    stack: list[Schema] = [document]
    dialect = _normalized_address(document.get("$schema"))
    while stack and len(seen) <= most:
        schema = stack.pop()
        if id(schema) in seen:
            continue
        seen.add(id(schema))
        if None in schema.values():
            _drop_nulls(schema)
        if not _REWRITTEN.isdisjoint(schema):
            stack += _targets(schema, document)
            _rewrite(schema, dialect, declares_dialect=declares_dialect)
        stack += inner_schemas(schema)


def _rewrite(schema: Schema, dialect: Any, *, declares_dialect: bool) -> None:
    _normalize_addresses(schema)
    if dialect != DRAFT_4:
        _move_exclusive_bounds(schema)
    if dialect == DEFAULT_DIALECT:
        _rename_tuples(schema)
        if not declares_dialect:
            _split_dependencies(schema)


def original_path(document: Any, path: Iterable[str | int]) -> Iterator[str | int]:
    """Yield the path in the document as it was before, from a path in the normalized document."""
    for step in path:
        found = _original_step(document, step) if isinstance(document, dict) else step
        document = _child(document, found)
        yield found


def _original_step(schema: Schema, step: str | int) -> str | int:
    if isinstance(schema.get("items"), list):
        if step == "prefixItems" and "prefixItems" not in schema:
            return "items"
        if step == "items":
            return "additionalItems"
    if step in ("dependentRequired", "dependentSchemas") and step not in schema:
        return "dependencies"
    return step


def _child(value: Any, step: str | int) -> Any:
    if isinstance(value, dict):
        return value.get(str(step))
    if isinstance(value, list) and isinstance(step, int) and step < len(value):
        return value[step]
    return None


def _drop_nulls(schema: Schema) -> None:
    for keyword in [each for each, value in schema.items() if value is None]:
        if keyword in _NEVER_NULL or is_applicator(keyword):
            del schema[keyword]


def _normalize_addresses(schema: Schema) -> None:
    if "$schema" in schema:
        schema["$schema"] = _normalized_address(schema["$schema"])
    for keyword in REFERENCES:
        if isinstance(schema.get(keyword), str):
            schema[keyword] = _escaped(schema[keyword])


def _normalized_address(address: Any) -> Any:
    """Return the address of the dialect as its authors write it, and others as they are."""
    if address is None or address == "":
        return DEFAULT_DIALECT
    if not isinstance(address, str) or not (match := _DIALECT.fullmatch(address.strip())):
        return address
    if match["old"]:
        return f"http://json-schema.org/draft-{_OLD[match['old']]}/schema"
    return f"https://json-schema.org/draft/{match['new'] or '2020-12'}/schema"


def _escaped(reference: str) -> str:
    base, hash_sign, fragment = reference.partition("#")
    fragment = _LITERAL_PERCENT.sub("%25", fragment)
    return f"{base}{hash_sign}{quote(fragment, safe=_SAFE_IN_FRAGMENT)}"


def _targets(schema: Schema, document: Schema) -> Iterator[Schema]:
    """Yield the schemas that the references lead to: they may be outside of every keyword."""
    for keyword in REFERENCES:
        reference = schema.get(keyword)
        if isinstance(reference, str) and reference.startswith("#/"):
            target = _follow(document, pointer_steps(unquote(reference[1:])))
            if isinstance(target, dict):
                yield target


def _follow(value: Any, steps: Sequence[str]) -> Any:
    for step in steps:
        is_index = isinstance(value, list) and step.isdecimal() and len(step) < 7
        value = _child(value, int(step) if is_index else step)
    return value


def _move_exclusive_bounds(schema: Schema) -> None:
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(is_exclusive := schema.get(exclusive), bool):
            del schema[exclusive]
            if is_exclusive and bound in schema:
                schema[exclusive] = schema.pop(bound)


def _rename_tuples(schema: Schema) -> None:
    if not isinstance(items := schema.get("items"), list) or "prefixItems" in schema:
        return
    del schema["items"]
    if items:
        schema["prefixItems"] = items
    if "additionalItems" in schema:
        schema["items"] = schema.pop("additionalItems")


def _split_dependencies(schema: Schema) -> None:
    dependencies = schema.get("dependencies")
    if not isinstance(dependencies, dict):
        return
    parts: dict[str, Schema] = {
        "dependentRequired": {n: x for n, x in dependencies.items() if isinstance(x, list)},
        "dependentSchemas": {n: x for n, x in dependencies.items() if isinstance(x, dict | bool)},
    }
    if len(parts["dependentRequired"]) + len(parts["dependentSchemas"]) < len(dependencies):
        return
    if parts.keys() & schema.keys():
        return
    del schema["dependencies"]
    schema.update({name: part for name, part in parts.items() if part})
