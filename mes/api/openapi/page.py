"""The page: the document laid out for people, so that a template only has to draw it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mes.api.openapi.words import WHEN

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One member of a body, an answer or a path."""

    name: str
    kind: str
    shape: str | None
    text: str
    required: bool


@dataclass(frozen=True)
class Answer:
    """What comes with one status and media type."""

    status: str
    media_type: str
    kind: str
    shapes: tuple[str, ...]


@dataclass(frozen=True)
class Refusal:
    """One problem: its status, its code and when it comes."""

    status: str
    code: str
    text: str


@dataclass(frozen=True)
class Operation:
    """One method of one path."""

    id: str
    method: str
    path: str
    summary: str
    text: str
    scope: str | None
    rows: tuple[Row, ...]
    curls: tuple[str, ...]
    answers: tuple[Answer, ...]
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True)
class Page:
    """All that is drawn."""

    version: str
    overview: tuple[str, ...]
    groups: tuple[tuple[str, str, tuple[Operation, ...]], ...]
    anywhere: tuple[Refusal, ...]
    of_keys: tuple[Refusal, ...]
    shapes: tuple[tuple[str, tuple[Row, ...]], ...]


def page(document: Document) -> Page:
    """The page of a document. What all operations refuse alike, or all with a key, is told once."""
    told = list(_operations(document))
    anywhere = _common(each for _, each in told)
    of_keys = _common(each for _, each in told if each.scope) - anywhere
    groups = [
        (tag["name"], tag["description"], _of_tag(tag["name"], told, anywhere | of_keys))
        for tag in document["tags"]
    ]
    schemas = document["components"]["schemas"]
    return Page(
        version=document["info"]["version"],
        overview=tuple(document["info"]["description"].split("\n\n")),
        groups=tuple(group for group in groups if group[2]),
        anywhere=_sorted(anywhere),
        of_keys=_sorted(of_keys),
        shapes=tuple((name, _rows(schemas[name])) for name in sorted(schemas)),
    )


def _common(operations: Iterable[Operation]) -> set[Refusal]:
    return set.intersection(*(set(each.refusals) for each in operations))


def _sorted(refusals: Iterable[Refusal]) -> tuple[Refusal, ...]:
    return tuple(sorted(refusals, key=lambda each: (each.status, each.code)))


def _of_tag(
    tag: str, told: list[tuple[str, Operation]], common: set[Refusal]
) -> tuple[Operation, ...]:
    return tuple(
        replace(each, refusals=_sorted(set(each.refusals) - common))
        for name, each in told
        if name == tag
    )


def _operations(document: Document) -> Iterator[tuple[str, Operation]]:
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            yield told["tags"][0], _operation(document, path, method, told)


def _operation(document: Document, path: str, method: str, told: Document) -> Operation:
    responses = [(status, _found(document, each)) for status, each in told["responses"].items()]
    in_path = [each for each in told["parameters"] if each["in"] == "path"]
    return Operation(
        id=told["operationId"],
        method=method.upper(),
        path=path,
        summary=told["summary"],
        text=told.get("description", ""),
        scope=next((next(iter(each.values()))[0] for each in told["security"]), None),
        rows=(*map(_parameter, in_path), *_rows(_body_of(document, told))),
        curls=tuple(_curls(path, method, told)),
        answers=tuple(each for pair in responses for each in _answers(*pair)),
        refusals=tuple(each for pair in responses for each in _refusals(*pair)),
    )


def _parameter(told: Document) -> Row:
    return Row(told["name"], "in the path", None, told["description"], True)


def _body_of(document: Document, told: Document) -> Document:
    if "requestBody" not in told:
        return {}
    return _found(document, told["requestBody"]["content"]["application/json"]["schema"])


def _found(document: Document, node: Document) -> Document:
    """What a reference refers to, or the thing itself."""
    if "$ref" not in node:
        return node
    found = document
    for step in node["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    return found


def _answers(status: str, response: Document) -> Iterator[Answer]:
    for media_type, media in response["content"].items():
        if "examples" not in media:  # which all refusals have
            schema = media["schema"]
            yield Answer(status, media_type, _kind(schema), tuple(_names(schema)))


def _refusals(status: str, response: Document) -> Iterator[Refusal]:
    media = response["content"].values()
    for code in dict.fromkeys(code for each in media for code in each.get("examples", ())):
        yield Refusal(status, code, WHEN[code])


def _rows(schema: Document) -> tuple[Row, ...]:
    required = schema.get("required", ())
    return tuple(
        Row(
            name=name,
            kind=_kind(each),
            shape=next(_names(each), None),
            text=each.get("description", ""),
            required=name in required,
        )
        for name, each in schema.get("properties", {}).items()
    )


def _names(schema: Document) -> Iterator[str]:
    """The shapes that a schema refers to."""
    if "$ref" in schema:
        yield schema["$ref"].rpartition("/")[2]
    inner = [schema["items"]] if "items" in schema else []
    for each in (*inner, *schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from _names(each)


def _kind(schema: Document) -> str:
    """The type of a value in words."""
    if "enum" in schema:
        return " or ".join("null" if each is None else json.dumps(each) for each in schema["enum"])
    if names := list(_names(schema)):
        nullable = {"type": "null"} in schema.get("anyOf", ())
        many = "list of " if schema.get("type") == "array" else ""
        return many + " or ".join([*names, *(["null"] if nullable else [])])
    kinds = schema.get("type", "anything")
    words = " or ".join([kinds] if isinstance(kinds, str) else kinds).replace("array", "list")
    return words + _bounds(schema)


def _bounds(schema: Document) -> str:
    if "maximum" not in schema:
        return ""
    if "exclusiveMinimum" in schema:
        return f", more than {schema['exclusiveMinimum']}, at most {schema['maximum']:g}"
    return f", {_plain(schema['minimum'])} to {_plain(schema['maximum'])}"


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def _curls(path: str, method: str, told: Document) -> Iterator[str]:
    for each in told["parameters"]:
        if each["in"] == "path":
            path = path.replace(f"{{{each['name']}}}", each["example"])
    head = ["curl -s" if method == "get" else f"curl -s -X {method.upper()}", f'"$MES_URL{path}"']
    if told["security"]:
        head.append('-H "Authorization: Bearer $MES_API_KEY"')
    if "requestBody" not in told:
        yield " ".join(head)
        return
    for example in told["requestBody"]["content"]["application/json"]["examples"].values():
        yield " \\\n  ".join(
            [
                f"curl -s {head[1]}",
                *head[2:],
                "-H 'Content-Type: application/json'",
                f"-d {shlex.quote(json.dumps(example['value'], indent=2))}",
            ]
        )
