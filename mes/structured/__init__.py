"""Structured output: schemas screened before they cost anything, answers judged by them."""

from mes.structured.asking import Generate, ask
from mes.structured.grammar import Finding
from mes.structured.limits import Limits
from mes.structured.retrying import Plan
from mes.structured.schemas import Schema, check
from mes.structured.second_validator import Comparison, SecondValidator, Verdict, compare, versions
from mes.structured.tools import Tools, tools_of

__all__ = [
    "Comparison",
    "Finding",
    "Generate",
    "Limits",
    "Plan",
    "Schema",
    "SecondValidator",
    "Tools",
    "Verdict",
    "ask",
    "check",
    "compare",
    "tools_of",
    "versions",
]
