"""Fixtures with the metrics of a service that has had some requests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.service import FakeOllama, Service


@dataclass
class ScrapedMetric:
    """One metric as it was scraped."""

    type: str
    samples: set[str] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)


@pytest.fixture(scope="package")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ScrapedMetric]]:
    """Return all metrics by their names, scraped from a real service after some requests."""
    folder = tmp_path_factory.mktemp("monitoring")
    models = {"mistral:7b": {}, "llama3.1:8b": {}}
    with (
        FakeOllama() as runtime,
        Service(folder, ollama_url=runtime.url, models=models, WEB_CONCURRENCY=2) as service,
    ):
        service.wait_until_ready()
        _send_requests(service, runtime)
        yield _parse(service.get("/metrics").text)


def _send_requests(service: Service, runtime: FakeOllama) -> None:
    runtime.control(tokens=4, ms_per_token=2)
    assert service.infer("mistral:7b").status_code == 200
    assert service.infer("llama3.1:8b", json_schema={"type": "object"}).status_code == 200
    assert service.infer("unknown:1b").status_code == 404


def _parse(text: str) -> dict[str, ScrapedMetric]:
    metrics: dict[str, ScrapedMetric] = {}
    for family in text_string_to_metric_families(text):
        # The parser removes the suffix of counters.
        name = f"{family.name}_total" if family.type == "counter" else family.name
        metrics[name] = ScrapedMetric(family.type)
        for sample in family.samples:
            metrics[name].samples.add(sample.name)
            metrics[name].labels |= set(sample.labels)
    return metrics


def read(path: str) -> str:
    return (Path(__file__).parents[2] / path).read_text()
