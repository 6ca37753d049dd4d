"""What a PromQL expression asks for: metrics, and labels of them."""

from __future__ import annotations

import re

import promql_parser
from promql_parser import AggModifierType, AggregateExpr, Expr, Matcher, VectorSelector

# What Grafana fills in.
_FILLED_IN = {"$__rate_interval": "5m", "$job": "mes", "$model": ".*"}


def parse(text: str) -> Expr:
    """The expression; ValueError where it is none."""
    for variable, value in _FILLED_IN.items():
        text = text.replace(variable, value)
    return promql_parser.parse(text)


def selectors(expr: Expr) -> list[VectorSelector]:
    """The selectors in it, wherever they stand."""
    return [each for each in _nodes(expr) if isinstance(each, VectorSelector)]


def asked(expr: Expr) -> set[tuple[str, str]]:
    """Each metric with each label that is matched or grouped by."""
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
    """The labels that anything in it is grouped by."""
    aggregates = (each for each in _nodes(expr) if isinstance(each, AggregateExpr))
    return {label for aggregate in aggregates for label in _grouping(aggregate)}


def values(expr: Expr, label: str) -> set[str]:
    """The values that the label is compared with; those of `a|b` each."""
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
