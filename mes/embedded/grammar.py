"""The grammar that holds a model to a JSON schema."""

from __future__ import annotations

import json
from typing import Any

from mes.embedded.api_errors import EngineRefused, RuntimeFailure
from mes.embedded.engine import Engine
from mes.embedded.slots import ClientConnection

Schema = dict[str, Any]
ANY_OBJECT: Schema = {"type": "object"}
COMPOSING = {"allOf", "anyOf", "oneOf", "if", "not", "$ref", "patternProperties"}
NESTED = {"items", "prefixItems", "additionalProperties", "anyOf", "oneOf"}
NESTED_BY_NAME = {"properties", "$defs", "definitions"}
# A word that no model writes unasked.
WITNESS = "ZQXJ"


class BadFormat(RuntimeFailure):
    """A status of 500 for the client's mistake, because Ollama has it so"""


def parse_format(value: Any) -> Schema | None:
    """The schema that `format` stands for, None for free text; BadFormat"""
    if value is None or value == "":
        return None
    if value == "json":
        return ANY_OBJECT
    if isinstance(value, dict):
        return value or ANY_OBJECT
    quoted = json.dumps(json.dumps(value))
    raise BadFormat(f'invalid format: {quoted}; expected "json" or a valid JSON Schema object')


def grammar_for(schema: Schema, engine: Engine, caller: ClientConnection) -> str:
    """For the engine's `grammar` field; EngineRefused where it cannot enforce the schema.

    The engine only logs a schema that it cannot compile and then answers as if there were none.
    So each new one is first tried behind a word that only a working grammar can produce.
    """
    rule = f"%json {json.dumps(_as_ollama_reads_it(schema))}"
    if rule not in engine.schemas_that_compile:
        if _try(f'%llguidance {{}}\nstart: "{WITNESS}" rest\nrest: {rule}', engine, caller):
            engine.schemas_that_compile.add(rule)
        else:
            raise EngineRefused(400, _refusal(engine))
    return f"%llguidance {{}}\nstart: {rule}"


def _try(text: str, engine: Engine, caller: ClientConnection) -> bool:
    body = {"prompt": "x", "n_predict": len(WITNESS), "temperature": 0, "grammar": text}
    return bool(engine.ask("/completion", body, caller)["content"] == WITNESS)


def _refusal(engine: Engine) -> str:
    marker = "failed to compile JSON schema: "
    reasons = [line.partition(marker)[2] for line in engine.complaints(marker)] or ["unsupported"]
    message = f"Field 'json_schema': \"json_schema\": JSON schema conversion failed:\n{reasons[-1]}"
    error = {"code": 400, "message": message, "type": "invalid_request_error"}
    return json.dumps({"error": error})


def _as_ollama_reads_it(schema: Schema) -> Schema:
    """`oneOf` as `anyOf`, and no properties but the declared ones unless the schema allows them.

    Left free, a small model adds properties until its tokens run out.
    """
    try:
        closed = schema if _composes(schema) else _closed(schema)
    except (AttributeError, RecursionError):
        closed = schema  # malformed: the engine says in which way
    return {**closed, "x-guidance": {"coerce_one_of": True}}


def _composes(node: Any) -> bool:
    """True where closing one object could contradict another that describes the same value"""
    if isinstance(node, list):
        return any(map(_composes, node))
    if not isinstance(node, dict):
        return False
    beside = "properties" in node and COMPOSING.intersection(node)
    return bool("allOf" in node or beside or any(map(_composes, node.values())))


def _closed(node: Any) -> Any:
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = dict(node)
    for key in NESTED.intersection(node):
        closed[key] = _closed(node[key])
    for key in NESTED_BY_NAME.intersection(node):
        closed[key] = {name: _closed(value) for name, value in node[key].items()}
    if "properties" in node:
        closed.setdefault("additionalProperties", False)
    return closed
