"""Structured output: check JSON Schemas, choose how to decode, validate answers and retry."""

from mes.structured.answer_forms import AnswerForm, answer_form
from mes.structured.decoding_modes import GrammarFinding
from mes.structured.retry import Generate, RetryPlan, enforced_mode, generate_with_retries
from mes.structured.schema import Schema, check_schema
from mes.structured.schema_tree import SchemaLimits
from mes.structured.second_validator import Comparison, SecondValidator, Verdict, compare, versions

__all__ = [
    "AnswerForm",
    "Comparison",
    "Generate",
    "GrammarFinding",
    "RetryPlan",
    "Schema",
    "SchemaLimits",
    "SecondValidator",
    "Verdict",
    "answer_form",
    "check_schema",
    "compare",
    "enforced_mode",
    "generate_with_retries",
    "versions",
]
