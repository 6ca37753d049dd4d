"""Find the metrics and labels that a PromQL expression uses."""

from __future__ import annotations

import re

import promql_parser
from promql_parser import AggModifierType, AggregateExpr, Expr, Matcher, VectorSelector

# Variables that Grafana replaces, with example values.
_VARIABLES = {"$__rate_interval": "5m", "$job": "mes", "$model": ".*"}


def parse(text: str) -> Expr:
    """Return the parsed expression; raise ValueError if it is invalid."""
    for variable, value in _VARIABLES.items():
        text = text.replace(variable, value)
    return promql_parser.parse(text)


def selectors(expr: Expr) -> list[VectorSelector]:
    """Return all selectors in the expression."""
    return [each for each in _nodes(expr) if isinstance(each, VectorSelector)]


def used_labels(expr: Expr) -> set[tuple[str, str]]:
    """Return pairs of a metric and a label that the expression matches or groups by."""
    matched = {(str(each.name), by.name) for each in selectors(expr) for by in _matchers(each)}
    grouped = {
        (str(each.name), label)
        for aggregate in _nodes(expr)
        if isinstance(aggregate, AggregateExpr)
        for each in selectors(aggregate.expr)
        for label in _grouping(aggregate)
    }
    return matched | grouped


def grouped_by(expr: Expr) -> set[str]:
    """Return the labels that any aggregation in the expression groups by."""
    aggregates = (each for each in _nodes(expr) if isinstance(each, AggregateExpr))
    return {label for aggregate in aggregates for label in _grouping(aggregate)}


def values(expr: Expr, label: str) -> set[str]:
    """Return the values that the label is matched with, split at `|`."""
    matchers = (by for each in selectors(expr) for by in _matchers(each) if by.name == label)
    return {value for by in matchers for value in re.split(r"\|", by.value) if value}


def _nodes(expr: Expr) -> list[Expr]:
    found: list[Expr] = []
    promql_parser.walk(expr, pre_visit=found.append)
    return found


def _matchers(selector: VectorSelector) -> list[Matcher]:
    return list(selector.matchers.matchers)


def _grouping(aggregate: AggregateExpr) -> list[str]:
    modifier = aggregate.modifier
    assert modifier is None or modifier.type == AggModifierType.By
    return list(modifier.labels) if modifier else []
