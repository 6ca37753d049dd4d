"""Validation: instances judged by a schema with two validators, without a generation."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response
from marshmallow import fields, validate

from mes import structured
from mes.api.auth import auth
from mes.api.operation_docs import documented
from mes.api.request_body import request_body
from mes.api.request_fields import LIST, Object, Strict
from mes.api.response_fields import ResponseSchema, many, member, numbers, one, one_of, text, whole
from mes.api.response_schemas import ViolationSchema
from mes.api.serializers import json_response
from mes.api.services import services
from mes.errors import QueueFull, SchemaInvalid, SchemaUnsafe
from mes.structured import Comparison, Schema, Verdict

MOST_INSTANCES = 1_000

bp = Blueprint("schema_validation", __name__, url_prefix="/v1")


class SchemaValidationSchema(Strict):
    """`POST /v1/schemas/validate`."""

    error_messages = {"unknown": "is not a field of this request", "type": "must be a JSON object"}

    json_schema = Object(required=True)
    instances = fields.List(
        fields.Raw(allow_none=True),
        required=True,
        validate=validate.Length(
            1, MOST_INSTANCES, error=f"must have 1 to {MOST_INSTANCES:,} instances"
        ),
        error_messages=LIST,
    )


class InstanceVerdict(ResponseSchema):
    verdict = one_of(("valid", "invalid", "undecided"), "`undecided` is neither valid nor invalid")
    errors = many(ViolationSchema, "the mistakes of an invalid instance, at most 5")
    reason = text("why it is undecided, such as the limit that was reached", null=True)


class InstanceComparison(ResponseSchema):
    index = whole("of the instance in the request, from 0")
    agree = member(fields.Boolean, "null where one of the two is undecided", null=True)
    mes = one(InstanceVerdict, "by the validator that MES judges answers by")
    jsonschema = one(InstanceVerdict, "by Python's `jsonschema`")


class Validators(ResponseSchema):
    mes = text("the library by which MES judges answers, and its version")
    jsonschema = text("the library that shares no code with it, and its version")


class ValidationTotals(ResponseSchema):
    """Each instance is counted in `instances` and in one of the others."""

    instances = whole("")
    valid = whole("by both")
    invalid = whole("by both")
    disagreements = whole("valid by one, invalid by the other")
    undecided = whole("by one or both")


class SchemaValidationAnswer(ResponseSchema):
    success = member(fields.Boolean, "always true; the verdicts are in `results`")
    dialect = text("the schema's, as a URI")
    schema_sha256 = text("of its compact text")
    validators = one(Validators, "by the names that they have in `results`")
    totals = one(ValidationTotals, "")
    disagreements = numbers("the indexes of the instances whose verdicts differ")
    results = many(InstanceComparison, "one for each instance, in their order")


@bp.post("/schemas/validate")
@auth.login_required
@request_body(SchemaValidationSchema())
@documented(SchemaValidationAnswer, raises=(SchemaInvalid, SchemaUnsafe, QueueFull))
def validate_instances(given: dict[str, Any]) -> Response:
    """Judge instances by a schema with two validators, and name where they disagree

    The schema is screened as inference would screen it.
    """
    own = services()
    schema = structured.check_schema(given["json_schema"], own.schema_limits)
    with own.client() as client:
        comparisons = structured.compare(
            schema, given["instances"], second=own.second_validator, client=client
        )
    return json_response(_report(schema, comparisons))


def _report(schema: Schema, comparisons: list[Comparison]) -> dict[str, Any]:
    return {
        "success": True,
        "dialect": schema.dialect,
        "schema_sha256": schema.sha256,
        "validators": structured.versions(),
        "totals": _totals(comparisons),
        "disagreements": [i for i, each in enumerate(comparisons) if each.agree is False],
        "results": [_result(index, each) for index, each in enumerate(comparisons)],
    }


def _totals(comparisons: list[Comparison]) -> dict[str, int]:
    agreed = [each.mes.verdict for each in comparisons if each.agree]
    return {
        "instances": len(comparisons),
        "valid": agreed.count("valid"),
        "invalid": agreed.count("invalid"),
        "disagreements": sum(each.agree is False for each in comparisons),
        "undecided": sum(each.agree is None for each in comparisons),
    }


def _result(index: int, comparison: Comparison) -> dict[str, Any]:
    return {
        "index": index,
        "agree": comparison.agree,
        "mes": _verdict(comparison.mes),
        "jsonschema": _verdict(comparison.jsonschema),
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    errors = [
        {"pointer": each.pointer, "keyword": each.keyword, "detail": each.detail}
        for each in verdict.errors
    ]
    return {"verdict": verdict.verdict, "errors": errors, "reason": verdict.reason}
