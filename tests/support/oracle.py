"""The test oracle for validation: `jsonschema`, which shares no code with the validator of MES."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry


def oracle(schema: Mapping[str, Any]) -> Validator:
    """Return a validator of the schema's dialect that asserts formats and fetches nothing."""
    validator_class = validator_for(schema, default=Draft202012Validator)
    return validator_class(
        schema, format_checker=validator_class.FORMAT_CHECKER, registry=Registry()
    )
