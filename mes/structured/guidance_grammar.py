"""The effect of each keyword in the grammar of LLGuidance, which the embedded runtime uses.

The facts are from trying each keyword and each format on the embedded runtime. It asks LLGuidance
to ignore unknown keywords and formats; a pattern that cannot be read makes it refuse the schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mes.structured.grammar_effects import (
    CONTRADICTION,
    ENFORCED,
    IGNORED,
    REFUSED,
    WITHOUT_EFFECT,
    Effect,
    Keywords,
    contradictions,
    undeclared_properties,
)
from mes.structured.keywords import DEFINITION
from mes.structured.schema_tree import SchemaNode

_UNKNOWN = {
    "uniqueItems", "contains", "minContains", "maxContains", "unevaluatedItems",
    "unevaluatedProperties", "propertyNames", "dependentRequired", "dependentSchemas",
    "dependencies", "not", "if", "then", "else", "$dynamicRef", "$recursiveRef",
}  # fmt: skip
_ENFORCED = {
    "type", "enum", "const", "$ref", "anyOf", "allOf", "properties", "patternProperties",
    "additionalProperties", "required", "minProperties", "maxProperties", "items", "prefixItems",
    "additionalItems", "minItems", "maxItems", "minLength", "maxLength", "pattern", "minimum",
    "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
}  # fmt: skip
_FORMATS = {
    "date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "unknown",
}  # fmt: skip
# Look-around, word boundaries, back-references, control characters, a brace or a bracket that
# stands for itself.
_UNREADABLE = re.compile(
    r"\(\?(?:[=!]|<[=!])|(?<!\\)(?:\\\\)*\\(?:[bBcGkKXzZ]|[1-9])"
    r"|(?:^|[(|^])\{|\[\^?[^\]\\]*\["
)


def convert_keywords(node: SchemaNode) -> Iterator[Effect]:
    """Yield the effect of each keyword of the sub-schema."""
    for keyword in node.keywords.keys() - WITHOUT_EFFECT:
        yield from _effects(keyword, node.keywords)
    for effect in contradictions(node.keywords):
        yield effect._replace(kind=CONTRADICTION)


def _effects(keyword: str, keywords: Keywords) -> Iterator[Effect]:
    if keyword in _UNKNOWN:
        yield Effect(keyword, IGNORED, "the grammar cannot express it")
    elif keyword == "oneOf":
        yield Effect(keyword, IGNORED, "read as anyOf: an answer may fit several alternatives")
    elif keyword == "format" and keywords["format"] not in _FORMATS:
        yield Effect(keyword, IGNORED, f"only {', '.join(sorted(_FORMATS))} are read")
    elif keyword == "format":
        yield Effect(keyword, ENFORCED)
    elif keyword in ("pattern", "patternProperties") and not _is_readable(keywords[keyword]):
        yield Effect(keyword, REFUSED, "has look-around or an escape that cannot be read")
    elif keyword == "enum" and not keywords["enum"]:
        yield Effect(keyword, CONTRADICTION, "has no values")
    elif keyword == "required" and _excludes_required(keywords):
        yield Effect(keyword, CONTRADICTION, "names a property that is not allowed")
    elif keyword in _ENFORCED:
        yield Effect(keyword, ENFORCED)


def _is_readable(found: object) -> bool:
    texts = found if isinstance(found, dict) else [found]
    return not any(_UNREADABLE.search(str(text)) for text in texts)


def _excludes_required(keywords: Keywords) -> bool:
    is_closed = keywords.get("additionalProperties") is False
    is_plain = is_closed and "patternProperties" not in keywords
    return is_plain and bool(undeclared_properties(keywords))


def converted_children(node: SchemaNode) -> list[SchemaNode]:
    """Return the sub-schemas that the converter reads after this one."""
    depth = len(node.path)
    read = [
        child
        for applies_to, child in node.children
        if applies_to != DEFINITION and str(child.path[depth : depth + 1][-1]) not in _UNKNOWN
    ]
    return [*read, *node.references] if "$ref" in node.keywords else read
