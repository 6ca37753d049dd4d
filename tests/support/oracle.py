"""The oracle: a second validator, `jsonschema`, that shares no code with the judge of MES."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry


def oracle(schema: Mapping[str, Any]) -> Validator:
    """By the schema's own dialect, with its formats; it fetches nothing."""
    kind = validator_for(schema, default=Draft202012Validator)
    return kind(schema, format_checker=kind.FORMAT_CHECKER, registry=Registry())
