"""The documentation of the API: `GET /openapi.json` for programs and `GET /docs` for people."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, Response, current_app, render_template, request
from markupsafe import Markup, escape

from mes.api.openapi.descriptions import ERROR_CAUSES
from mes.api.operation_docs import documented
from mes.api.response_fields import encode_json
from mes.errors import format_number

bp = Blueprint("docs", __name__, template_folder="templates")

# Building the document takes 0.1 s of CPU time, which first requests at the same time would repeat.
_building = threading.Lock()


@bp.get("/openapi.json")
@documented({"application/json": {"type": "object"}})
def openapi() -> Response:
    """Return this documentation as an OpenAPI 3.1 document."""
    with _building:
        document = _json_of(_app())
    return Response(document, mimetype="application/json")


@bp.get("/docs")
@documented({"text/html": {"type": "string"}})
def show() -> Response:
    """Return this documentation as a page for people."""
    with _building:
        html = _html_of(_app(), request.root_url[:-1])
    return Response(html, headers={"Content-Security-Policy": _content_security_policy(_style())})


@lru_cache(maxsize=1)
def document_of(app: Flask) -> dict[str, Any]:
    """Return the document of the application, made at the first call."""
    # Imported here, because most workers never need it.
    from mes.api.openapi.document import document

    return document(app)


@lru_cache(maxsize=1)
def _page_of(app: Flask) -> DocsPage:
    return build_page(document_of(app))


# All responses share these bytes, because each keeps them until its client has read them.
@lru_cache(maxsize=1)
def _json_of(app: Flask) -> bytes:
    return encode_json(document_of(app))


@lru_cache(maxsize=4)
def _html_of(app: Flask, url: str) -> bytes:
    html = render_template("docs.html", page=_page_of(app), url=url, style=_style())
    return html.encode()


def _app() -> Flask:
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    return app


@lru_cache(maxsize=1)
def _style() -> Markup:
    return Markup(Path(__file__).with_name("templates").joinpath("docs.css").read_text())


def _content_security_policy(style: str) -> str:
    """Return a policy that allows the page's own style and nothing else."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


@bp.app_template_filter("prose")
def _prose(text: str) -> Markup:
    """Return the text with code elements for the parts in backticks."""
    pieces = [escape(piece) for piece in text.split("`")]
    coded = (f"<code>{piece}</code>" if at % 2 else piece for at, piece in enumerate(pieces))
    return Markup("").join(map(Markup, coded))


# The page: the parts of the document as the template draws them.

Document = Mapping[str, Any]


@dataclass(frozen=True)
class FieldRow:
    """A field of a body or a response, or a path parameter."""

    name: str
    kind: str
    component: str | None
    text: str
    required: bool


@dataclass(frozen=True)
class DocumentedResponse:
    """A response of one status and media type."""

    status: str
    media_type: str
    kind: str
    components: tuple[str, ...]


@dataclass(frozen=True)
class DocumentedError:
    """An error: its status, its code and its cause."""

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
    responses: tuple[DocumentedResponse, ...]
    errors: tuple[DocumentedError, ...]


@dataclass(frozen=True)
class DocsPage:
    """The whole page.

    `common_errors` are those of all operations, `key_errors` those of all operations with a key;
    `groups` have a name, a description and operations.
    """

    version: str
    overview: tuple[str, ...]
    groups: tuple[tuple[str, str, tuple[DocumentedOperation, ...]], ...]
    common_errors: tuple[DocumentedError, ...]
    key_errors: tuple[DocumentedError, ...]
    components: tuple[tuple[str, tuple[FieldRow, ...]], ...]


def build_page(document: Document) -> DocsPage:
    """Return the page of a document. Errors that operations have in common are listed once."""
    tagged = list(_tagged_operations(document))
    common = _common_errors(operation for _, operation in tagged)
    of_keys = _common_errors(operation for _, operation in tagged if operation.scope) - common
    groups = [
        (tag["name"], tag["description"], _of_tag(tag["name"], tagged, common | of_keys))
        for tag in document["tags"]
    ]
    schemas = document["components"]["schemas"]
    return DocsPage(
        version=document["info"]["version"],
        overview=tuple(document["info"]["description"].split("\n\n")),
        groups=tuple(group for group in groups if group[2]),
        common_errors=_sorted(common),
        key_errors=_sorted(of_keys),
        components=tuple((name, _rows(schemas[name])) for name in sorted(schemas)),
    )


def _common_errors(operations: Iterable[DocumentedOperation]) -> set[DocumentedError]:
    return set.intersection(*(set(operation.errors) for operation in operations))


def _sorted(errors: Iterable[DocumentedError]) -> tuple[DocumentedError, ...]:
    return tuple(sorted(errors, key=lambda error: (error.status, error.code)))


def _of_tag(
    tag: str, tagged: list[tuple[str, DocumentedOperation]], common: set[DocumentedError]
) -> tuple[DocumentedOperation, ...]:
    return tuple(
        replace(operation, errors=_sorted(set(operation.errors) - common))
        for name, operation in tagged
        if name == tag
    )


def _tagged_operations(document: Document) -> Iterator[tuple[str, DocumentedOperation]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield operation["tags"][0], _operation(document, path, method, operation)


def _operation(
    document: Document, path: str, method: str, operation: Document
) -> DocumentedOperation:
    responses = [
        (status, _resolve(document, each)) for status, each in operation["responses"].items()
    ]
    in_path = [each for each in operation["parameters"] if each["in"] == "path"]
    return DocumentedOperation(
        id=operation["operationId"],
        method=method.upper(),
        path=path,
        summary=operation["summary"],
        text=operation.get("description", ""),
        scope=next((next(iter(each.values()))[0] for each in operation["security"]), None),
        rows=(*map(_parameter_row, in_path), *_rows(_body_schema(document, operation))),
        curls=tuple(_curls(path, method, operation)),
        responses=tuple(each for pair in responses for each in _responses(*pair)),
        errors=tuple(each for pair in responses for each in _errors(*pair)),
    )


def _parameter_row(parameter: Document) -> FieldRow:
    return FieldRow(parameter["name"], "in the path", None, parameter["description"], True)


def _body_schema(document: Document, operation: Document) -> Document:
    if "requestBody" not in operation:
        return {}
    return _resolve(document, operation["requestBody"]["content"]["application/json"]["schema"])


def _resolve(document: Document, node: Document) -> Document:
    """Return the target of a reference; a node without a reference unchanged."""
    if "$ref" not in node:
        return node
    target = document
    for step in node["$ref"].removeprefix("#/").split("/"):
        target = target[step]
    return target


def _responses(status: str, response: Document) -> Iterator[DocumentedResponse]:
    for media_type, media in response["content"].items():
        if "examples" not in media:  # only errors have examples
            schema = media["schema"]
            yield DocumentedResponse(
                status, media_type, _kind(schema), tuple(_component_names(schema))
            )


def _errors(status: str, response: Document) -> Iterator[DocumentedError]:
    media = response["content"].values()
    for code in dict.fromkeys(code for each in media for code in each.get("examples", ())):
        yield DocumentedError(status, code, ERROR_CAUSES[code])


def _rows(schema: Document) -> tuple[FieldRow, ...]:
    required = schema.get("required", ())
    return tuple(
        FieldRow(
            name=name,
            kind=_kind(field),
            component=next(_component_names(field), None),
            text=field.get("description", ""),
            required=name in required,
        )
        for name, field in schema.get("properties", {}).items()
    )


def _component_names(schema: Document) -> Iterator[str]:
    """Yield the names of the components that a schema refers to."""
    if "$ref" in schema:
        yield schema["$ref"].rpartition("/")[2]
    inner = [schema[key] for key in ("items", "contentSchema") if key in schema]
    if schema.get("type") == "object" and "data" in schema.get("properties", {}):
        inner.append(schema["properties"]["data"])  # a server-sent event
    for each in (*inner, *schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from _component_names(each)


def _kind(schema: Document) -> str:
    """Return the type of a value in words."""
    if "enum" in schema:
        return " or ".join("null" if each is None else json.dumps(each) for each in schema["enum"])
    if components := list(_component_names(schema)):
        nullable = {"type": "null"} in schema.get("anyOf", ())
        prefix = "list of " if schema.get("type") == "array" else ""
        return prefix + " or ".join([*components, *(["null"] if nullable else [])])
    kinds = schema.get("type") or [each["type"] for each in schema.get("anyOf", ())] or "any value"
    words = " or ".join([kinds] if isinstance(kinds, str) else kinds).replace("array", "list")
    return words + _bounds(schema)


def _bounds(schema: Document) -> str:
    if "maximum" not in schema:
        return ""
    if "exclusiveMinimum" in schema:
        return (
            f", more than {schema['exclusiveMinimum']}, at most {format_number(schema['maximum'])}"
        )
    return f", {format_number(schema['minimum'])} to {format_number(schema['maximum'])}"


def _curls(path: str, method: str, operation: Document) -> Iterator[str]:
    """Yield a curl command for each example of the body; one command for a path without a body."""
    for each in operation["parameters"]:
        if each["in"] == "path":
            path = path.replace(f"{{{each['name']}}}", each["example"])
    url = f'"$MES_URL{path}"'
    key = ['-H "Authorization: Bearer $MES_API_KEY"'] if operation["security"] else []
    if "requestBody" not in operation:
        yield " ".join(
            ["curl -s" if method == "get" else "curl -s -X " + method.upper(), url, *key]
        )
        return
    for example in operation["requestBody"]["content"]["application/json"]["examples"].values():
        content_type = "-H 'Content-Type: application/json'"
        data = f"-d {shlex.quote(json.dumps(example['value'], indent=2))}"
        yield " \\\n  ".join([f"curl -s {url}", *key, content_type, data])
