"""A service that has seen a little of everything, and what it tells of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.service import FakeOllama, Service


@dataclass
class Told:
    """One metric as it was scraped."""

    type: str
    samples: set[str] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)


@pytest.fixture(scope="package")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Told]]:
    """All metrics by their names, scraped from a real service after some traffic."""
    folder = tmp_path_factory.mktemp("monitoring")
    models = {"mistral:7b": {}, "llama3.1:8b": {}}
    with (
        FakeOllama() as runtime,
        Service(folder, ollama_url=runtime.url, models=models, WEB_CONCURRENCY=2) as service,
    ):
        service.wait_until_ready()
        _some_traffic(service, runtime)
        yield _parsed(service.get("/metrics").text)


def _some_traffic(service: Service, runtime: FakeOllama) -> None:
    runtime.control(tokens=4, ms_per_token=2)
    assert service.infer("mistral:7b").status_code == 200
    assert service.infer("llama3.1:8b", json_schema={"type": "object"}).status_code == 200
    assert service.infer("unheard-of:1b").status_code == 404


def _parsed(text: str) -> dict[str, Told]:
    metrics: dict[str, Told] = {}
    for family in text_string_to_metric_families(text):
        # The parser leaves out what every counter's name ends with.
        name = f"{family.name}_total" if family.type == "counter" else family.name
        metrics[name] = Told(family.type)
        for sample in family.samples:
            metrics[name].samples.add(sample.name)
            metrics[name].labels |= set(sample.labels)
    return metrics


def read(path: str) -> str:
    return (Path(__file__).parents[2] / path).read_text()
