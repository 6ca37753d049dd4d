"""Tests that the table of metrics, the dashboard and the alerts match the exported metrics."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.conftest import read
from tests.monitoring.promql import grouped_by, parse, selectors, used_labels, values
from tests.test_readme import error_codes

# Labels that Prometheus adds.
BY_PROMETHEUS = {"job", "instance"}
ALERTS = yaml.safe_load(read("deploy/alerts.yml"))["groups"][0]["rules"]
DASHBOARD = json.loads(read("deploy/grafana-dashboard.json"))
TARGETS = [
    pytest.param(target, id=f"{panel['title']} {target['refId']}")
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", [])
]
EXPRESSIONS = [
    *(pytest.param(alert["expr"], id=alert["alert"]) for alert in ALERTS),
    *(pytest.param(*(t["expr"] for t in param.values), id=param.id) for param in TARGETS),
]


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_an_expression_uses_metrics_and_labels_that_exist(scraped, text):
    expr = parse(text)
    labels = {"up": BY_PROMETHEUS}
    for metric in scraped.values():
        labels |= dict.fromkeys(metric.samples, metric.labels | BY_PROMETHEUS)
    assert selectors(expr)
    assert {str(each.name) for each in selectors(expr)} <= set(labels)
    assert [(name, label) for name, label in used_labels(expr) if label not in labels[name]] == []
    codes = {code for _, code in error_codes()}
    assert values(expr, "code") | values(expr, "error_type") <= codes


@pytest.mark.parametrize("target", TARGETS)
def test_a_legend_uses_labels_that_its_series_have(target):
    assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= grouped_by(
        parse(target["expr"])
    )


def test_the_dashboards_variables_use_labels_that_exist(scraped):
    queries = [each["query"] for each in DASHBOARD["templating"]["list"]]
    found = [re.fullmatch(r"label_values\((\w+)(?:{.*})?, (\w+)\)", query) for query in queries]
    used = [match.groups() for match in found if match]
    assert len(used) == 2
    assert all(label in scraped[name].labels | BY_PROMETHEUS for name, label in used)


def test_every_alert_has_a_runbook():
    for alert in ALERTS:
        assert set(alert["annotations"]) == {"summary", "runbook"}
        assert alert["labels"]["severity"] in ("warning", "critical")


def test_the_table_of_metrics_matches_the_exported_metrics(scraped):
    assert dict(table_rows()) == {
        name: (metric.type, metric.labels - {"le"}) for name, metric in scraped.items()
    }


def table_rows() -> Iterator[tuple[str, Any]]:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", read("docs/metrics.md"), re.MULTILINE)
    for name, type, labels in rows:
        yield name, (type, set(re.findall(r"`(\w+)`", labels)))


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
@pytest.mark.parametrize(
    "command", [("check", "rules", "deploy/alerts.yml"), ("test", "rules", "alerts_test.yml")]
)
def test_promtool_accepts_the_rules_and_they_fire(command):
    *verbs, file = command
    path = Path(__file__).parents[2] / file if "/" in file else Path(__file__).parent / file
    done = subprocess.run(["promtool", *verbs, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
