"""The copy of a schema that becomes a grammar: without the keywords that the runtime refuses.

One keyword never costs the rest of the grammar. The answer is validated against the whole schema.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

from mes.structured.grammar_effects import (
    DISTORTED,
    EXCLUDED,
    FATAL,
    REFUSED,
    undeclared_properties,
)
from mes.structured.messages import SchemaProblem
from mes.structured.schema_tree import Path, SchemaLimits, SchemaNode, SchemaTree

_HARMFUL = {REFUSED, DISTORTED, EXCLUDED, FATAL}

# The copy of a schema within the limits. Copied definitions may make it larger.
_ENOUGH = 1_000_000
_LIMITS = SchemaLimits(
    text_bytes=_ENOUGH,
    depth=_ENOUGH,
    subschemas=_ENOUGH,
    properties=_ENOUGH,
    enum_values=_ENOUGH,
    patterns=_ENOUGH,
    pattern_characters=_ENOUGH,
    fan_out=_ENOUGH,
)

Schema = dict[str, Any]


class GrammarCopy:
    """A copy of a schema's document, from which keywords can be left out.

    `definitions` are the added definitions, by name, with the path of their original.
    """

    def __init__(self, tree: SchemaTree) -> None:
        self._tree = tree
        self._copies: dict[int, Schema] = {}
        self._targets: dict[int, tuple[str, SchemaNode]] = {}
        self.is_changed = False

    @cached_property
    def document(self) -> Schema:
        """The copy, made when it is first changed."""
        copied: Schema = self._copy(self._tree.document)
        return copied

    def repair(self, node: SchemaNode, keyword: str, effect: str) -> bool:
        """Change the copy so that a harmful effect of a keyword is gone.

        Returns:
            Whether a keyword was left out; False if the copy means the same, or is not changed.
        """
        if effect not in _HARMFUL:
            return False
        if isinstance(node.schema, bool):
            return self._replace_boolean(node)
        if keyword == "$ref":
            self._refer_by_name(node)
            return False
        repair = _REPAIRS.get(keyword)
        if repair is None:
            return False
        schema = self._copy_of(node)
        if keyword not in schema:
            return False
        before = dict(schema)
        is_left_out = repair(schema)
        self.is_changed = self.is_changed or schema != before
        return is_left_out

    def rebuilt_tree(self) -> SchemaTree | None:
        """Return the tree of the copy; None if it has become too large."""
        self._add_definitions()
        try:
            tree = SchemaTree(self.document, _LIMITS, self._tree.dialect)
            tree.follow_references()
        except (SchemaProblem, RecursionError):
            return None
        return tree

    @property
    def definitions(self) -> dict[str, Path]:
        return {name: target.path for name, target in self._targets.values()}

    def _copy_of(self, node: SchemaNode) -> Schema:
        assert self.document is not None  # all copies exist as soon as it is made
        return self._copies[id(node.schema)]

    def _copy(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._copy(each) for each in value]
        if not isinstance(value, dict):
            return value
        copy = self._copies[id(value)] = {name: self._copy(each) for name, each in value.items()}
        return copy

    def _replace_boolean(self, node: SchemaNode) -> bool:
        *steps, last = node.path
        parent: Any = self.document
        try:
            for step in steps:
                parent = parent[step]
            is_property = not node.schema and steps[-1:] == ["properties"]
            if is_property:
                # Properties that are not declared are not generated either.
                del parent[last]
            else:
                parent[last] = {}
        except (KeyError, IndexError, TypeError):
            return False  # only a reference leads there
        self.is_changed = True
        return not node.schema and not is_property

    def _refer_by_name(self, node: SchemaNode) -> None:
        """Refer to a definition whose name needs no escapes."""
        target = node.references[0]
        name = f"reference-{len(self._targets) + 1}"
        name, _ = self._targets.setdefault(id(target.schema), (name, target))
        self._copy_of(node)["$ref"] = f"#/$defs/{name}"
        self.is_changed = True

    def _add_definitions(self) -> None:
        added = {}
        for name, target in self._targets.values():
            definition = self._copies.get(id(target.schema), {})
            outer = {"$defs", "definitions", "$schema", "$id", "id"} if target.path == () else ()
            added[name] = {each: x for each, x in definition.items() if each not in outer}
        if added:
            self.document["$defs"] = {**self.document.get("$defs", {}), **added}


def _leave_out(*keywords: str) -> Callable[[Schema], bool]:
    def repair(schema: Schema) -> bool:
        for keyword in keywords:
            schema.pop(keyword, None)
        return True

    return repair


def _inline_or_leave_out_all_of(schema: Schema) -> bool:
    """Replace `allOf` with its only member, if the two have no keyword in common."""
    members: Iterable[Any] = schema.pop("allOf")
    match members:
        case [dict(member)] if not member.keys() & schema.keys():
            schema.update(member)
            return False
    return True


def _declare_required(schema: Schema) -> bool:
    """Declare the required properties, because the grammar excludes those that are not declared."""
    if "additionalProperties" not in schema:
        missing = undeclared_properties(schema)
        schema["properties"] = {
            **schema.get("properties", {}),
            **{name: {} for name in schema["required"] if name in missing},
        }
    return False


_REPAIRS: dict[str, Callable[[Schema], bool]] = {
    "allOf": _inline_or_leave_out_all_of,
    "required": _declare_required,
    "minimum": _leave_out("minimum", "exclusiveMinimum"),
    **{
        keyword: _leave_out(keyword)
        for keyword in (
            "pattern",
            "patternProperties",
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "minProperties",
            "maxProperties",
            "minContains",
            "maxContains",
        )
    },
}
