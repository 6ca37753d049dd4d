"""The account: what the clients counted against what `/metrics` tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from bench.soaking.clients import Seen
from tests.support.service import Service

_BY_STATUS = "http_server_request_duration_seconds_count"
_BY_MODEL = "gen_ai_server_request_duration_seconds_count"
_LOADS = "mes_model_loads_total"
_EVICTIONS = "mes_model_evictions_total"
_SCRAPE = "/metrics"
_AT_WORK = ("mes_requests_in_flight", "mes_requests_queued")

Key = tuple[str, str]


@dataclass(frozen=True)
class Page:
    """What one scrape told, as far as it matters here."""

    by_status: Counter[Key]
    by_model: Counter[Key]
    loads: int
    evictions: int
    at_work: int


def scrape(service: Service) -> Page:
    """Read the page once."""
    told: dict[str, Counter[Key]] = {}
    for family in text_string_to_metric_families(service.get(_SCRAPE).text):
        for sample in family.samples:
            labels, counts = sample.labels, told.setdefault(sample.name, Counter())
            counts[_key(sample.name, labels)] += int(sample.value)
    return Page(
        by_status=told.get(_BY_STATUS, Counter()),
        by_model=told.get(_BY_MODEL, Counter()),
        loads=told[_LOADS].total(),
        evictions=told[_EVICTIONS].total(),
        at_work=sum(told[name].total() for name in _AT_WORK),
    )


def _key(name: str, labels: dict[str, str]) -> Key:
    if name == _BY_STATUS:
        return labels["http_route"], labels["http_response_status_code"]
    if name == _BY_MODEL:
        return labels["gen_ai_request_model"], labels["error_type"]
    return "", ""


@dataclass(frozen=True)
class Account:
    """Both counts of the same requests, and those that died with their worker."""

    before: Page
    after: Page
    seen: list[Seen]
    taken_along: int

    @property
    def missing(self) -> int:
        """Requests that were sent, and counted nowhere."""
        routes = {seen.route for seen in self.seen}
        return len(self.seen) - sum(n for (route, _), n in self._told.items() if route in routes)

    def breaches(self) -> Iterator[str]:
        """Where the two cannot both be right."""
        if not 0 <= self.missing <= self.taken_along:
            yield f"{self.missing} requests are not counted, {self.taken_along} died"
        statuses = Counter((s.route, str(s.status)) for s in self.seen if s.status > 0)
        yield from self._compare(statuses, self._told)
        models = Counter((s.model, s.code) for s in self.seen if s.status > 0 and s.model)
        yield from self._compare(models, self.after.by_model - self.before.by_model)

    @property
    def _told(self) -> Counter[Key]:
        # A scrape is counted when its page has been made, so the first is not on its own.
        return self.after.by_status - self.before.by_status - Counter({(_SCRAPE, "200"): 1})

    def _compare(self, received: Counter[Key], told: Counter[Key]) -> Iterator[str]:
        """Nothing that was received is missing, and no more is told than could have been sent."""
        # Whoever hung up, or lost its worker while that was answering, knows of no status.
        unknown = sum(seen.status <= 0 for seen in self.seen)
        for key, count in received.items():
            if not count <= told[key] <= count + unknown:
                yield f"{' '.join(key)}: {count} received, {told[key]} counted"
