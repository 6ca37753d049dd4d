"""Documentation: this interface, for programs and for people."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, Response, current_app, render_template, request
from markupsafe import Markup, escape

from mes.api.openapi.descriptions import WHEN
from mes.api.operation_docs import documented
from mes.api.serializers import json_response

bp = Blueprint("docs", __name__, template_folder="templates")


@bp.get("/openapi.json")
@documented({"application/json": {"type": "object"}})
def openapi() -> Response:
    """This interface as an OpenAPI 3.1 document."""
    return json_response(document_of(_app()))


@bp.get("/docs")
@documented({"text/html": {"type": "string"}})
def show() -> Response:
    """The same, to be read."""
    style = _style()
    drawn = render_template(
        "docs.html", page=_page_of(_app()), url=request.root_url[:-1], style=style
    )
    return Response(drawn, headers={"Content-Security-Policy": _policy(style)})


@lru_cache(maxsize=1)
def document_of(app: Flask) -> dict[str, Any]:
    """The document of the application, made when somebody first asks for it."""
    # Not on top: most workers are never asked.
    from mes.api.openapi.document import document

    return document(app)


@lru_cache(maxsize=1)
def _page_of(app: Flask) -> Any:
    pass  # IMPORT GONE

    return build_page(document_of(app))


def _app() -> Flask:
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    return app


@lru_cache(maxsize=1)
def _style() -> Markup:
    return Markup(Path(__file__).with_name("templates").joinpath("docs.css").read_text())


def _policy(style: str) -> str:
    """Nothing but the page's own style: no script, no picture, nothing from elsewhere."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


@bp.app_template_filter("prose")
def _prose(text: str) -> Markup:
    """Text in which backticks mark code."""
    pieces = [escape(piece) for piece in text.split("`")]
    coded = (f"<code>{piece}</code>" if at % 2 else piece for at, piece in enumerate(pieces))
    return Markup("").join(map(Markup, coded))


# The page: the document laid out for people, so that a template only has to draw it.

Document = Mapping[str, Any]


@dataclass(frozen=True)
class FieldRow:
    """One member of a body, an answer or a path."""

    name: str
    kind: str
    shape: str | None
    text: str
    required: bool


@dataclass(frozen=True)
class DocumentedResponse:
    """What comes with one status and media type."""

    status: str
    media_type: str
    kind: str
    shapes: tuple[str, ...]


@dataclass(frozen=True)
class DocumentedError:
    """One problem: its status, its code and when it comes."""

    status: str
    code: str
    text: str


@dataclass(frozen=True)
class DocumentedOperation:
    """One method of one path."""

    id: str
    method: str
    path: str
    summary: str
    text: str
    scope: str | None
    rows: tuple[FieldRow, ...]
    curls: tuple[str, ...]
    answers: tuple[DocumentedResponse, ...]
    refusals: tuple[DocumentedError, ...]


@dataclass(frozen=True)
class DocsPage:
    """All that is drawn."""

    version: str
    overview: tuple[str, ...]
    groups: tuple[tuple[str, str, tuple[DocumentedOperation, ...]], ...]
    anywhere: tuple[DocumentedError, ...]
    of_keys: tuple[DocumentedError, ...]
    shapes: tuple[tuple[str, tuple[FieldRow, ...]], ...]


def build_page(document: Document) -> DocsPage:
    """The page of a document. What all operations refuse alike, or all with a key, is told once."""
    told = list(_operations(document))
    anywhere = _common(each for _, each in told)
    of_keys = _common(each for _, each in told if each.scope) - anywhere
    groups = [
        (tag["name"], tag["description"], _of_tag(tag["name"], told, anywhere | of_keys))
        for tag in document["tags"]
    ]
    schemas = document["components"]["schemas"]
    return DocsPage(
        version=document["info"]["version"],
        overview=tuple(document["info"]["description"].split("\n\n")),
        groups=tuple(group for group in groups if group[2]),
        anywhere=_sorted(anywhere),
        of_keys=_sorted(of_keys),
        shapes=tuple((name, _rows(schemas[name])) for name in sorted(schemas)),
    )


def _common(operations: Iterable[DocumentedOperation]) -> set[DocumentedError]:
    return set.intersection(*(set(each.refusals) for each in operations))


def _sorted(refusals: Iterable[DocumentedError]) -> tuple[DocumentedError, ...]:
    return tuple(sorted(refusals, key=lambda each: (each.status, each.code)))


def _of_tag(
    tag: str, told: list[tuple[str, DocumentedOperation]], common: set[DocumentedError]
) -> tuple[DocumentedOperation, ...]:
    return tuple(
        replace(each, refusals=_sorted(set(each.refusals) - common))
        for name, each in told
        if name == tag
    )


def _operations(document: Document) -> Iterator[tuple[str, DocumentedOperation]]:
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            yield told["tags"][0], _operation_of(document, path, method, told)


def _operation_of(
    document: Document, path: str, method: str, told: Document
) -> DocumentedOperation:
    responses = [(status, _found(document, each)) for status, each in told["responses"].items()]
    in_path = [each for each in told["parameters"] if each["in"] == "path"]
    return DocumentedOperation(
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


def _parameter(told: Document) -> FieldRow:
    return FieldRow(told["name"], "in the path", None, told["description"], True)


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


def _answers(status: str, response: Document) -> Iterator[DocumentedResponse]:
    for media_type, media in response["content"].items():
        if "examples" not in media:  # which all refusals have
            schema = media["schema"]
            yield DocumentedResponse(status, media_type, _kind(schema), tuple(_names(schema)))


def _refusals(status: str, response: Document) -> Iterator[DocumentedError]:
    media = response["content"].values()
    for code in dict.fromkeys(code for each in media for code in each.get("examples", ())):
        yield DocumentedError(status, code, WHEN[code])


def _rows(schema: Document) -> tuple[FieldRow, ...]:
    required = schema.get("required", ())
    return tuple(
        FieldRow(
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
    inner = [schema[where] for where in ("items", "contentSchema") if where in schema]
    if schema.get("type") == "object" and "data" in schema.get("properties", {}):
        inner.append(schema["properties"]["data"])  # of an event
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
