"""Compare the requests that the clients counted with the counters of `/metrics`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from bench.soak_test.load import RequestOutcome
from tests.support.service import Service

_BY_STATUS = "http_server_request_duration_seconds_count"
_BY_MODEL = "gen_ai_server_request_duration_seconds_count"
_LOADS = "mes_model_loads_total"
_EVICTIONS = "mes_model_evictions_total"
_SCRAPE = "/metrics"
_CURRENT = ("mes_requests_in_flight", "mes_requests_queued")

Key = tuple[str, str]


@dataclass(frozen=True)
class Scrape:
    """The values of one scrape of `/metrics` that are compared."""

    by_status: Counter[Key]
    by_model: Counter[Key]
    loads: int
    evictions: int
    current: int


def scrape(service: Service) -> Scrape:
    """Scrape `/metrics` once."""
    samples: dict[str, Counter[Key]] = {}
    for family in text_string_to_metric_families(service.get(_SCRAPE).text):
        for sample in family.samples:
            labels, counts = sample.labels, samples.setdefault(sample.name, Counter())
            counts[_key(sample.name, labels)] += int(sample.value)
    return Scrape(
        by_status=samples.get(_BY_STATUS, Counter()),
        by_model=samples.get(_BY_MODEL, Counter()),
        loads=samples[_LOADS].total(),
        evictions=samples[_EVICTIONS].total(),
        current=sum(samples[name].total() for name in _CURRENT),
    )


def _key(name: str, labels: dict[str, str]) -> Key:
    if name == _BY_STATUS:
        return labels["http_route"], labels["http_response_status_code"]
    if name == _BY_MODEL:
        return labels["gen_ai_request_model"], labels["error_type"]
    return "", ""


@dataclass(frozen=True)
class MetricsCheck:
    """Both counts of the same requests, and the number that may have been lost with a worker."""

    before: Scrape
    after: Scrape
    outcomes: list[RequestOutcome]
    lost_with_worker: int

    @property
    def missing(self) -> int:
        """Return the number of requests that were sent and not counted."""
        routes = {outcome.route for outcome in self.outcomes}
        counted = sum(n for (route, _), n in self._counted.items() if route in routes)
        return len(self.outcomes) - counted

    def breaches(self) -> Iterator[str]:
        """Yield a description of each disagreement that lost requests do not explain."""
        if not 0 <= self.missing <= self.lost_with_worker:
            yield f"{self.missing} requests are not counted, {self.lost_with_worker} were lost"
        statuses = Counter((s.route, str(s.status)) for s in self.outcomes if s.status > 0)
        yield from self._compare(statuses, self._counted)
        answered = [s for s in self.outcomes if s.status > 0 and s.model]
        models = Counter((s.model, s.code) for s in answered)
        yield from self._compare(models, self.after.by_model - self.before.by_model)

    @property
    def _counted(self) -> Counter[Key]:
        # A scrape is counted after its page was made, so the first is only on the second.
        return self.after.by_status - self.before.by_status - Counter({(_SCRAPE, "200"): 1})

    def _compare(self, received: Counter[Key], counted: Counter[Key]) -> Iterator[str]:
        """Yield the keys of which fewer were counted than received, or more than were sent."""
        # A client that hung up or lost its connection does not know the status.
        unknown = sum(outcome.status <= 0 for outcome in self.outcomes)
        for key, count in received.items():
            if not count <= counted[key] <= count + unknown:
                yield f"{' '.join(key)}: {count} received, {counted[key]} counted"
