"""`POST /v1/schemas/check`, and `POST /v1/schemas/validate` with two validators."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response
from marshmallow import fields

from mes import structured
from mes.api.auth import auth
from mes.api.operation_docs import documented
from mes.api.request_body import request_body
from mes.api.request_lists import Items
from mes.api.request_schemas import NOT_EMPTY, Object, Strict, Text
from mes.api.response_fields import (
    Document,
    ResponseSchema,
    boolean,
    choice,
    integer,
    integers,
    json_response,
    nested,
    nested_list,
    string,
    strings,
)
from mes.api.response_schemas import ViolationSchema
from mes.api.services import get_services
from mes.errors import ModelNotFound, QueueFull, SchemaInvalid, SchemaUnsafe
from mes.structured import Comparison, Schema

MAX_INSTANCES = 1_000

_MESSAGES = {"unknown": "is not a field of this request", "type": "must be a JSON object"}

checks_bp = Blueprint("checks", __name__, url_prefix="/v1")
bp = Blueprint("schema_validation", __name__, url_prefix="/v1")


class SchemaCheckSchema(Strict):
    """The body of `POST /v1/schemas/check`."""

    error_messages = _MESSAGES

    json_schema = Object(required=True)
    model_id = Text(allow_none=True, validate=NOT_EMPTY)


class FindingSchema(ResponseSchema):
    """How the runtime treats one keyword at one place of the schema."""

    pointer = string("JSON pointer to the place in the schema.")
    keyword = string("The keyword.")
    effect = choice(
        ("ignored", "omitted", "refused", "distorted", "excluded", "fatal"),
        "How the runtime treats the keyword.",
    )
    reason = string("Why the runtime treats the keyword like this.")


class SchemaCheckAnswer(ResponseSchema):
    """The response to `POST /v1/schemas/check`."""

    success = boolean("Always true; an invalid schema gives an error response.")
    dialect = string("URI of the schema's dialect.")
    schema_sha256 = string("SHA-256 of the compact text of the schema.")
    bytes = integer("Length of the compact text of the schema.")
    subschemas = integer("Number of subschemas.")
    modes = strings("Modes in which the model would be asked, the strictest first.")
    enforced = strings("Keywords that the runtime would enforce during the generation.")
    ignored = strings("Keywords that the runtime would not enforce.")
    findings = nested_list(
        FindingSchema, "Keywords that the runtime does not enforce, with the reason."
    )


@checks_bp.post("/schemas/check", endpoint="check")
@auth.login_required
@request_body(SchemaCheckSchema())
@documented(SchemaCheckAnswer, raises=(ModelNotFound, SchemaInvalid, SchemaUnsafe))
def check_json_schema(body: dict[str, Any]) -> Response:
    """Check a JSON Schema without a generation.

    Runs the checks of an inference and gives the same errors. The response lists the keywords that
    the runtime would enforce and those that it would not.
    """
    services = get_services()
    model_id = body.get("model_id")
    spec = None if model_id is None else services.catalog.current().get(model_id)
    runtime = services.known_runtime_status().version
    schema = structured.check_schema(body["json_schema"], services.schema_limits, runtime=runtime)
    modes = schema.modes_for(constrain=spec is None or spec.supports_json_mode)
    return json_response(_check_report(schema, modes))


def _check_report(schema: Schema, modes: tuple[str, ...]) -> Document:
    keywords = schema.keywords(modes[0])
    notable = [finding for finding in schema.report.findings if finding.is_notable]
    return SchemaCheckAnswer.build(
        success=True,
        dialect=schema.dialect,
        schema_sha256=schema.sha256,
        bytes=len(schema.text.encode()),
        subschemas=len(schema.tree.nodes),
        modes=modes,
        enforced=keywords.enforced,
        ignored=keywords.ignored,
        findings=[FindingSchema.serialize(finding) for finding in notable],
    )


class SchemaValidationSchema(Strict):
    """The body of `POST /v1/schemas/validate`."""

    error_messages = _MESSAGES

    json_schema = Object(required=True)
    instances = Items(
        fields.Raw(allow_none=True), most=MAX_INSTANCES, required=True, validate=NOT_EMPTY
    )


class InstanceVerdict(ResponseSchema):
    """The verdict of one validator on one instance."""

    verdict = choice(
        ("valid", "invalid", "undecided"),
        "`undecided` if the validator reached a limit or cannot validate against the schema.",
    )
    errors = nested_list(ViolationSchema, "Violations by an invalid instance, at most 5.")
    reason = string("Why the verdict is undecided, such as the limit that was reached.", null=True)


class InstanceComparison(ResponseSchema):
    """The verdicts on one instance. The source is its index with its `Comparison`."""

    index = integer("Index of the instance in the request, from 0 on.", source=lambda pair: pair[0])
    agree = boolean(
        "Whether both verdicts are the same; null if one of them is undecided.",
        source=lambda pair: pair[1].agree,
        null=True,
    )
    mes = nested(
        InstanceVerdict,
        "Verdict of the validator that MES uses for answers.",
        source=lambda pair: pair[1].mes,
    )
    jsonschema = nested(
        InstanceVerdict,
        "Verdict of Python's `jsonschema`.",
        source=lambda pair: pair[1].jsonschema,
    )


class Validators(ResponseSchema):
    """The two validators."""

    mes = string("Library and version that MES uses for answers.")
    jsonschema = string("Library and version that shares no code with it.")


class ValidationTotals(ResponseSchema):
    """Numbers of instances. Each is counted in `instances` and in one of the others."""

    instances = integer("All instances.", source=len)
    valid = integer("Valid by both validators.", source=lambda each: _agreed(each, "valid"))
    invalid = integer("Invalid by both validators.", source=lambda each: _agreed(each, "invalid"))
    disagreements = integer(
        "Valid by one validator, invalid by the other.",
        source=lambda comparisons: len(_disagreements(comparisons)),
    )
    undecided = integer(
        "Undecided by one or both validators.",
        source=lambda comparisons: sum(each.agree is None for each in comparisons),
    )


class SchemaValidationAnswer(ResponseSchema):
    """The response to `POST /v1/schemas/validate`."""

    success = boolean("Always true; the verdicts are in `results`.")
    dialect = string("URI of the schema's dialect.")
    schema_sha256 = string("SHA-256 of the compact text of the schema.")
    validators = nested(Validators, "The validators by their names in `results`.")
    totals = nested(ValidationTotals, "Numbers of instances by verdict.")
    disagreements = integers("Indexes of the instances with different verdicts.")
    results = nested_list(InstanceComparison, "The verdicts on each instance, in their order.")


@bp.post("/schemas/validate")
@auth.login_required
@request_body(SchemaValidationSchema())
@documented(SchemaValidationAnswer, raises=(SchemaInvalid, SchemaUnsafe, QueueFull))
def validate_instances(body: dict[str, Any]) -> Response:
    """Validate JSON values against a schema with two validators, and list their disagreements.

    The schema is checked as for an inference.
    """
    services = get_services()
    schema = structured.check_schema(body["json_schema"], services.schema_limits)
    with services.client() as client:
        comparisons = structured.compare(
            schema, body["instances"], second=services.second_validator, client=client
        )
    return json_response(_validation_report(schema, comparisons))


def _validation_report(schema: Schema, comparisons: list[Comparison]) -> Document:
    return SchemaValidationAnswer.build(
        success=True,
        dialect=schema.dialect,
        schema_sha256=schema.sha256,
        validators=Validators.build(**structured.versions()),
        totals=ValidationTotals.serialize(comparisons),
        disagreements=_disagreements(comparisons),
        results=[InstanceComparison.serialize(pair) for pair in enumerate(comparisons)],
    )


def _agreed(comparisons: list[Comparison], verdict: str) -> int:
    return sum(each.agree is True and each.mes.verdict == verdict for each in comparisons)


def _disagreements(comparisons: list[Comparison]) -> list[int]:
    return [index for index, each in enumerate(comparisons) if each.agree is False]
