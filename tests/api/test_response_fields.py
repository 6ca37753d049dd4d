"""Response fields: one declaration gives the JSON value and its documentation."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from flask import Flask

from mes.api.operation_docs import documented
from mes.api.response_fields import (
    ResponseSchema,
    constant,
    integer,
    json_response,
    nested,
    nested_list,
    number,
    string,
)


class PartSchema(ResponseSchema):
    name = string("Name of the part.")
    weight_grams = number("Weight of the part, in grams.", null=True)


class ProbeAnswer(ResponseSchema):
    type = constant("probe", "Always `probe`.")
    size = integer("Size, from an attribute of the same name.")
    first = nested(PartSchema, "The first part, from a function.", source=lambda p: p.parts[0])
    first_name = string("Name of the first part, from a path of attributes.", source="main.name")
    parts = nested_list(PartSchema, "All parts.")
    note = string("A note, if there is one.", required=False)


@dataclass(frozen=True)
class Part:
    name: str
    weight_grams: float | None = None


@dataclass(frozen=True)
class Probe:
    parts: tuple[Part, ...]
    size: int = 3
    secret: str = "not declared"
    note: str | None = None

    @property
    def main(self) -> Part:
        return self.parts[0]


PROBE = Probe((Part("a", 1.5), Part("b")))


def test_a_serializer_takes_each_value_from_its_source():
    assert ProbeAnswer.serialize(PROBE) == {
        "type": "probe",
        "size": 3,
        "first": {"name": "a", "weight_grams": 1.5},
        "first_name": "a",
        "parts": [{"name": "a", "weight_grams": 1.5}, {"name": "b", "weight_grams": None}],
    }


def test_an_optional_field_is_left_out_without_a_value_and_present_with_one():
    assert "note" not in ProbeAnswer.serialize(PROBE)
    assert ProbeAnswer.serialize(Probe(PROBE.parts, note=""))["note"] == ""


def test_an_attribute_that_is_not_declared_is_not_sent():
    assert "secret" not in ProbeAnswer.serialize(PROBE)


def test_a_field_of_a_subclass_is_added_and_an_excluded_one_is_left_out():
    class ShortAnswer(ProbeAnswer):
        class Meta(ResponseSchema.Meta):
            exclude = ("parts", "first")

        count = integer("Number of parts.", source=lambda probe: len(probe.parts))

    names = {"type", "size", "first_name", "count"}
    assert set(ShortAnswer.serialize(PROBE)) == names
    assert ShortAnswer.required_names == names


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "a", "weight_grams": 1, "colour": "red"}, r"not declared \['colour'\]"),
        ({"name": "a"}, r"missing \['weight_grams'\]"),
    ],
)
def test_values_that_are_not_declared_or_missing_cannot_be_built(values, message):
    with pytest.raises(TypeError, match=message):
        PartSchema.build(**values)


def test_a_declared_field_is_in_the_response_and_in_the_document(app: Flask):
    @documented(ProbeAnswer)
    def view():
        """Return a probe."""
        return json_response(ProbeAnswer.serialize(Probe(PROBE.parts, note="with a note")))

    app.add_url_rule("/probe", "health.probe", view)
    client = app.test_client()
    answer = client.get("/probe").get_json()
    schemas = client.get("/openapi.json").get_json()["components"]["schemas"]
    assert set(answer) == set(schemas["ProbeAnswer"]["properties"])
    assert set(answer["first"]) == set(schemas["Part"]["properties"])
    assert set(schemas["ProbeAnswer"]["required"]) == set(answer) - {"note"}
    assert schemas["ProbeAnswer"]["properties"]["size"]["description"] == (
        "Size, from an attribute of the same name."
    )


def test_every_response_field_has_a_description(client):
    schemas = client.get("/openapi.json").get_json()["components"]["schemas"]
    missing = [
        f"{name}.{field}"
        for name, schema in schemas.items()
        for field, each in schema["properties"].items()
        if not each.get("description")
    ]
    assert not [each for each in missing if each.partition(".")[0] in _response_components()]


def _response_components() -> set[str]:
    pending, found = [ResponseSchema], set()
    while pending:
        for schema in pending.pop().__subclasses__():
            found.add(vars(schema).get("component_name") or schema.__name__.removesuffix("Schema"))
            pending.append(schema)
    return found
