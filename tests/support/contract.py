"""The contract: what /openapi.json says of each answer, held against the answers that tests see."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import jsonschema_rs
from flask import Flask, Response, request

from mes.api.openapi.docs_page import document_of


class Contract:
    """A document, closed: what it does not mention is a violation here, though not for clients."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = json.loads(json.dumps(document))
        for schema in self._document["components"]["schemas"].values():
            schema["additionalProperties"] = False
        self._validator_of = cache(self._compiled)

    def violations(
        self, method: str, path: str, status: int, media_type: str, body: Any = None
    ) -> list[str]:
        """What the document does not say of such an answer; without a body, of its head alone."""
        operation = self._document["paths"].get(path, {}).get(method.lower())
        if operation is None:
            return [f"no operation {method} {path}"]
        response = operation["responses"].get(str(status))
        if response is None:
            return [f"no status {status} of {method} {path}"]
        media = self._resolved(response)["content"].get(media_type)
        if media is None:
            return [f"no {media_type} of {status} of {method} {path}"]
        return [] if body is None else self._wrong(media["schema"], body)

    def violations_of(self, shape: str, body: Any) -> list[str]:
        """What the document does not say of such a shape."""
        return self._wrong({"$ref": f"#/components/schemas/{shape}"}, body)

    def _wrong(self, schema: Any, body: Any) -> list[str]:
        errors = self._validator_of(json.dumps(schema)).iter_errors(body)
        return [f"{error.instance_path}: {error.message}" for error in errors]

    def _compiled(self, schema: str) -> Any:
        whole = {**json.loads(schema), "components": self._document["components"]}
        return jsonschema_rs.Draft202012Validator(whole)

    def _resolved(self, node: Any) -> Any:
        if "$ref" in node:
            return self._document["components"]["responses"][node["$ref"].rpartition("/")[2]]
        return node


@cache
def _contract(app: Flask) -> Contract:
    return Contract(document_of(app))


def event_loop(app: Flask) -> list[str]:
    """Look at each answer of the application from now on; what breaks the contract."""
    broken: list[str] = []

    def look(response: Response) -> Response:
        rule = request.url_rule
        # A 499 is for the log; whoever would hear it has gone.
        is_heard = response.status_code != 499 and request.method not in ("HEAD", "OPTIONS")
        if rule is not None and is_heard:
            path = rule.rule.replace("<path:", "{").replace("<", "{").replace(">", "}")
            body = response.get_json(silent=True) if response.is_sequence else None
            told = (request.method, path, response.status_code, response.mimetype, body)
            broken.extend(_contract(app).violations(*told))
        return response

    app.after_request(look)
    return broken
