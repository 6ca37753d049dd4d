"""The verdicts of a soak test: which guarantees were broken, and by which observations."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from bench.soak_test.environment import CONCURRENT, DEADLINE_SECONDS, PLACES
from bench.soak_test.fault_injection import FaultInjector
from bench.soak_test.growth import Growth
from bench.soak_test.load import HUNG_UP, NEVER, RequestOutcome
from bench.soak_test.metrics_check import MetricsCheck
from bench.soak_test.model_faults import NOT_PULLED
from tests.integration.helpers import LOST


@dataclass(frozen=True)
class SoakResult:
    """All observations of a soak test."""

    seed: int
    minutes: float
    outcomes: list[RequestOutcome]
    fault_injector: FaultInjector
    metrics_check: MetricsCheck
    growth: Growth
    left_over: dict[str, Any]
    errors_logged: list[str]


@dataclass(frozen=True)
class Verdict:
    """One guarantee, and the observations that broke it."""

    promise: str
    breaches: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        return not self.breaches


def lost_without_cause(outcomes: list[RequestOutcome], fault_injector: FaultInjector) -> list[str]:
    """Return the connections that broke although no worker with them was killed."""
    return [
        f"{each.kind} on port {each.port}, after {each.seconds:.2f} s"
        for each in outcomes
        if each.status == LOST and not fault_injector.may_have_lost(each)
    ]


def not_pulled_without_cause(
    outcomes: list[RequestOutcome], fault_injector: FaultInjector
) -> list[str]:
    """Return the requests that were refused for a deleted model, which was not deleted."""
    return [
        f"{each.kind} for {each.model}, sent at {each.sent_at:.1f}"
        for each in outcomes
        if each.code == NOT_PULLED and not fault_injector.models.explain(each)
    ]


def verdicts(soak: SoakResult) -> list[Verdict]:
    """Return a verdict for each guarantee that a soak test checks."""
    outcomes, limit = soak.outcomes, DEADLINE_SECONDS
    waited = [each for each in outcomes if each.status != HUNG_UP]
    late = [each for each in waited if each.status == NEVER or each.seconds > limit]
    errors = Counter(f"{each.kind}: {each.error}" for each in outcomes if each.error)
    return [
        Verdict("every request gets its answer or a clean error", _with_counts(errors)),
        Verdict(
            "only requests of a killed worker are lost",
            lost_without_cause(outcomes, soak.fault_injector),
        ),
        Verdict(
            "only models that were deleted are refused as not pulled",
            not_pulled_without_cause(outcomes, soak.fault_injector),
        ),
        Verdict(f"nothing hangs beyond {limit} s", [f"{s.kind}: {s.seconds:.1f} s" for s in late]),
        Verdict(
            "limits hold at every instant",
            soak.fault_injector.runtime_counters.breaches(PLACES, CONCURRENT),
        ),
        Verdict("metrics add up to what clients counted", list(soak.metrics_check.breaches())),
        Verdict("loads and evictions are those of the runtime", _swaps(soak)),
        Verdict("nothing stays in flight or queued, and every model is served", _left(soak)),
        Verdict("nothing has grown", soak.growth.breaches()),
        Verdict("the log has no internal error", soak.errors_logged),
    ]


def _swaps(soak: SoakResult) -> list[str]:
    done, totals = soak.fault_injector.done, soak.fault_injector.runtime_counters.totals
    page = soak.metrics_check.after
    # A kill or a restart may come between a swap and its count, once for each place. A fault may
    # come between the action of the runtime and its response, or between a request and an unload.
    bound = PLACES * (done["kill"] + done["restart"])
    bound += sum(done[kind] for kind in ("fault", "delete", "update", "stick"))
    pairs = {"loads": (page.loads, "loads"), "evictions": (page.evictions, "unloads")}
    return [
        f"{kind}: {counted} counted, {totals[name]} seen by the runtime"
        for kind, (counted, name) in pairs.items()
        if abs(counted - totals[name]) > bound
    ]


def _left(soak: SoakResult) -> list[str]:
    current = {"in the metrics": soak.metrics_check.after.current}
    return [f"{name}: {value}" for name, value in {**soak.left_over, **current}.items() if value]


def _with_counts(counts: Counter[str]) -> list[str]:
    return [f"{count} times {text}" for text, count in counts.most_common()]
