"""The oracle: a second validator, `jsonschema`, that shares no code with the validator of MES."""

from __future__ import annotations

from mes.structured.second_validator_process import validator_of as oracle

__all__ = ["oracle"]
