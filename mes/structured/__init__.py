"""Structured output: check JSON Schemas, choose how to decode, validate answers and retry."""

from mes.structured.decoding_modes import GrammarFinding
from mes.structured.retry import Generate, RetryPlan, generate_with_retries
from mes.structured.schema import Schema, ToolSchemas, check_schema, tool_schemas
from mes.structured.schema_tree import SchemaLimits
from mes.structured.second_validator import Comparison, SecondValidator, Verdict, compare, versions

__all__ = [
    "Comparison",
    "Generate",
    "GrammarFinding",
    "RetryPlan",
    "Schema",
    "SchemaLimits",
    "SecondValidator",
    "ToolSchemas",
    "Verdict",
    "check_schema",
    "compare",
    "generate_with_retries",
    "tool_schemas",
    "versions",
]
