"""Structured output: check JSON Schemas, choose how to decode, validate answers and retry."""

from mes.structured.decoding_modes import GrammarFinding
from mes.structured.retry import Generate, RetryPlan, generate_with_retries
from mes.structured.schema import Schema, ToolSchemas, check_schema, tool_schemas
from mes.structured.schema_tree import SchemaLimits

__all__ = [
    "Generate",
    "GrammarFinding",
    "RetryPlan",
    "Schema",
    "SchemaLimits",
    "ToolSchemas",
    "check_schema",
    "generate_with_retries",
    "tool_schemas",
]
