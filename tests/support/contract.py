"""The contract: responses that tests receive are validated against /openapi.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import jsonschema_rs
from flask import Flask, Response, request

from mes.api.openapi.docs_page import document_of
from mes.api.operation_docs import operation_of


class Contract:
    """Validates responses against a document in which all schemas are closed.

    A field that is not documented is a violation here, although clients must ignore it.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = json.loads(json.dumps(document))
        for schema in self._document["components"]["schemas"].values():
            schema["additionalProperties"] = False
        self._validator_of = cache(self._compile)

    def violations(
        self, method: str, path: str, status: int, media_type: str, body: Any = None
    ) -> list[str]:
        """Return the violations of a response; without a body, of its status and media type."""
        operation = self._document["paths"].get(path, {}).get(method.lower())
        if operation is None:
            return [f"no operation {method} {path}"]
        response = operation["responses"].get(str(status))
        if response is None:
            return [f"no status {status} of {method} {path}"]
        media = self._resolve(response)["content"].get(media_type)
        if media is None:
            return [f"no {media_type} of {status} of {method} {path}"]
        return [] if body is None else self._validate(media["schema"], body)

    def violations_of(self, component: str, body: Any) -> list[str]:
        """Return the violations of one component by a value."""
        return self._validate({"$ref": f"#/components/schemas/{component}"}, body)

    def _validate(self, schema: Any, body: Any) -> list[str]:
        errors = self._validator_of(json.dumps(schema)).iter_errors(body)
        return [f"{error.instance_path}: {error.message}" for error in errors]

    def _compile(self, schema: str) -> Any:
        complete = {**json.loads(schema), "components": self._document["components"]}
        return jsonschema_rs.Draft202012Validator(complete)

    def _resolve(self, node: Any) -> Any:
        if "$ref" in node:
            return self._document["components"]["responses"][node["$ref"].rpartition("/")[2]]
        return node


@cache
def _contract(app: Flask) -> Contract:
    return Contract(document_of(app))


def watch_responses(app: Flask) -> list[str]:
    """Validate each response of the application from now on; return the list of violations."""
    violations: list[str] = []

    def validate(response: Response) -> Response:
        rule = request.url_rule
        is_of_api = rule is not None and operation_of(app.view_functions[rule.endpoint]) is not None
        # A 499 is for the log only: its client has disconnected.
        is_received = response.status_code != 499 and request.method not in ("HEAD", "OPTIONS")
        if rule is not None and is_of_api and is_received:
            path = rule.rule.replace("<path:", "{").replace("<", "{").replace(">", "}")
            body = response.get_json(silent=True) if response.is_sequence else None
            received = (request.method, path, response.status_code, response.mimetype, body)
            violations.extend(_contract(app).violations(*received))
        return response

    app.after_request(validate)
    return violations
