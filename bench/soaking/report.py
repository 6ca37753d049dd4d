"""The report of a soak: what happened, and which promises were kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.soaking import growth
from bench.soaking.account import Account
from bench.soaking.clients import HUNG_UP, NEVER, Seen
from bench.soaking.growth import Sizes
from bench.soaking.records import Records
from bench.soaking.stage import CONCURRENT, DEADLINE_SECONDS, PLACES
from bench.soaking.trouble import Trouble
from tests.integration.helpers import LOST, percentile

_SHOWN = 5
_PERCENTS = {"p50": 50, "p95": 95, "p99": 99, "max": 100}


@dataclass(frozen=True)
class Soak:
    """All that a soak has brought to light."""

    seed: int
    minutes: float
    seen: list[Seen]
    trouble: Trouble
    records: Records
    account: Account
    sizes: tuple[Sizes, Sizes | None]
    left_over: dict[str, Any]
    complaints: list[str]


@dataclass(frozen=True)
class Verdict:
    """One promise, and what broke it."""

    promise: str
    breaches: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        return not self.breaches


def lost_without_cause(seen: list[Seen], trouble: Trouble) -> list[str]:
    """Connections that broke though no worker died that held them."""
    return [
        f"{each.kind} on port {each.port}, after {each.seconds:.2f} s"
        for each in seen
        if each.status == LOST and not trouble.took_along(each)
    ]


def verdicts(soak: Soak) -> list[Verdict]:
    """Each promise that a soak puts to the test."""
    seen, limit = soak.seen, DEADLINE_SECONDS
    late = [s for s in seen if s.status == NEVER or (s.status != HUNG_UP and s.seconds > limit)]
    wrong = Counter(f"{s.kind}: {s.wrong}" for s in seen if s.wrong)
    return [
        Verdict("every request gets its answer or a clean error", _counted(wrong)),
        Verdict("only what a killed worker held is lost", lost_without_cause(seen, soak.trouble)),
        Verdict(f"nothing hangs beyond {limit} s", [f"{s.kind}: {s.seconds:.1f} s" for s in late]),
        Verdict("limits hold at every instant", soak.records.breaches(PLACES, CONCURRENT)),
        Verdict("metrics add up to what clients counted", list(soak.account.breaches())),
        Verdict("loads and evictions are those of the runtime", _swaps(soak)),
        Verdict("nothing is left in flight or queued, and all is served", _left(soak)),
        Verdict("nothing grows by more than 5 %", growth.breaches(*soak.sizes)),
        Verdict("the log has no error of the service's own", soak.complaints),
    ]


def _swaps(soak: Soak) -> list[str]:
    done, page, totals = soak.trouble.done, soak.account.after, soak.records.totals
    # Each kill and each restart may come between a swap and its being noted, once for each place;
    # each fault between what the runtime did and its answer.
    bound = PLACES * (done["kill"] + done["restart"]) + done["fault"]
    pairs = {"loads": (page.loads, "loads"), "evictions": (page.evictions, "unloads")}
    return [
        f"{what}: {told} told, {totals[name]} seen by the runtime"
        for what, (told, name) in pairs.items()
        if abs(told - totals[name]) > bound
    ]


def _left(soak: Soak) -> list[str]:
    left = [f"{name}: {thing}" for name, thing in soak.left_over.items()]
    return left + (
        [f"metrics tell of {soak.account.after.at_work}"] * bool(soak.account.after.at_work)
    )


def _counted(counts: Counter[str]) -> list[str]:
    return [f"{count} times {what}" for what, count in counts.most_common()]


def document(soak: Soak) -> dict[str, Any]:
    """The report as JSON."""
    given = verdicts(soak)
    return {
        "kept": all(verdict.kept for verdict in given),
        "verdicts": [{**asdict(verdict), "kept": verdict.kept} for verdict in given],
        "seed": soak.seed,
        "minutes": soak.minutes,
        "requests": len(soak.seen),
        "outcomes": _outcomes(soak.seen),
        "latency_seconds": _latencies(soak.seen),
        "trouble": dict(soak.trouble.done),
        "faults": dict(soak.trouble.faults),
        "lost": _lost(soak),
        "metrics": {"missing": soak.account.missing, "taken_along": soak.account.taken_along},
        "runtime": soak.records.told(),
        "told": {"loads": soak.account.after.loads, "evictions": soak.account.after.evictions},
        "sizes": [asdict(sizes) for sizes in soak.sizes if sizes is not None],
    }


def _lost(soak: Soak) -> dict[str, int]:
    return {
        "requests": sum(seen.status == LOST for seen in soak.seen),
        "held_by_the_killed": sum(len(kill.ports) for kill in soak.trouble.kills),
        "most_by_one": max((len(kill.ports) for kill in soak.trouble.kills), default=0),
    }


def _kinds(seen: list[Seen]) -> list[str]:
    return sorted({each.kind for each in seen})


def _outcomes(seen: list[Seen]) -> dict[str, dict[str, int]]:
    counts = {kind: Counter(s.outcome for s in seen if s.kind == kind) for kind in _kinds(seen)}
    return {kind: dict(found.most_common()) for kind, found in counts.items()}


def _latencies(seen: list[Seen]) -> dict[str, dict[str, float]]:
    """Of all that were answered, errors included."""
    answered = [each for each in seen if each.status > 0]
    times = {
        kind: [each.seconds for each in answered if each.kind == kind] for kind in _kinds(answered)
    }
    return {
        kind: {name: round(percentile(found, percent), 3) for name, percent in _PERCENTS.items()}
        for kind, found in times.items()
    }


def text(report: dict[str, Any]) -> str:
    """The report for people."""
    return "\n".join(_lines(report))


def _lines(report: dict[str, Any]) -> Iterator[str]:
    minutes, lost, metrics = report["minutes"], report["lost"], report["metrics"]
    rate = report["requests"] / minutes / 60
    yield f"seed {report['seed']}, {minutes:g} minutes"
    yield f"{report['requests']} requests, {rate:.0f} a second"
    yield "done: " + ", ".join(f"{count} x {what}" for what, count in report["trouble"].items())
    yield "faults: " + ", ".join(f"{n} x {what}" for what, n in sorted(report["faults"].items()))
    yield f"\n{'outcome':36}" + "".join(f"{kind:>10}" for kind in report["outcomes"])
    for outcome in sorted({name for found in report["outcomes"].values() for name in found}):
        counts = (found.get(outcome, 0) for found in report["outcomes"].values())
        yield f"{outcome:36}" + "".join(f"{count or '-':>10}" for count in counts)
    yield f"\n{'seconds to the answer':36}" + "".join(f"{name:>10}" for name in _PERCENTS)
    for kind, times in report["latency_seconds"].items():
        yield f"{kind:36}" + "".join(f"{times[name]:10.3f}" for name in _PERCENTS)
    yield f"\nlost with killed workers: {lost['requests']} of {lost['held_by_the_killed']} held"
    yield f"counted by clients and not by metrics: {metrics['missing']}"
    yield from _runtime(report)
    yield from _growth(report["sizes"])
    yield ""
    for verdict in report["verdicts"]:
        yield f"{'kept  ' if verdict['kept'] else 'BROKEN'}  {verdict['promise']}"
        yield from (f"          {breach}" for breach in verdict["breaches"][:_SHOWN])


def _runtime(report: dict[str, Any]) -> Iterator[str]:
    seen, told = report["runtime"], report["told"]
    peak = max(seen["peaks"].values())
    yield f"most at a time: {peak} generations of a model, {seen['peak_loaded']} models in memory"
    yield f"loads: {told['loads']} told, {seen['totals']['loads']} seen by the runtime"
    yield f"evictions: {told['evictions']} told, {seen['totals']['unloads']} seen by the runtime"


def _growth(sizes: list[dict[str, Any]]) -> Iterator[str]:
    yield f"\n{'at rest, before and after':36}"
    for who in ("master", "workers"):
        for name in sizes[0][who]:
            yield f"{who + ': ' + name:36}" + "".join(f"{each[who][name]:10}" for each in sizes)
    for name in ("state_files", "state_bytes"):
        yield f"{name:36}" + "".join(f"{each[name]:10}" for each in sizes)
