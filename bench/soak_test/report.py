"""The report of a soak, for programs and for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from bench.soaking.clients import Seen
from bench.soaking.verdicts import Soak, verdicts
from tests.integration.helpers import LOST, percentile

_SHOWN = 5
_PERCENTS = {"p50": 50, "p95": 95, "p99": 99, "max": 100}


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
        "runtime": soak.trouble.records.told(),
        "told": {"loads": soak.account.after.loads, "evictions": soak.account.after.evictions},
        "growth": asdict(soak.growth),
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
    parts = (_done, _outcome_table, _latency_table, _counts, _growth, _validation)
    return "\n\n".join("\n".join(part(report)) for part in parts)


def _done(report: dict[str, Any]) -> Iterator[str]:
    rate = report["requests"] / report["minutes"] / 60
    yield f"seed {report['seed']}, {report['minutes']:g} minutes"
    yield f"{report['requests']} requests, {rate:.0f} a second"
    yield "done: " + ", ".join(f"{count} x {what}" for what, count in report["trouble"].items())
    yield "faults: " + ", ".join(f"{n} x {what}" for what, n in sorted(report["faults"].items()))


def _outcome_table(report: dict[str, Any]) -> Iterator[str]:
    by_kind = report["outcomes"]
    yield _row("outcome", by_kind)
    for outcome in sorted({name for found in by_kind.values() for name in found}):
        yield _row(outcome, [found.get(outcome, "-") for found in by_kind.values()])


def _latency_table(report: dict[str, Any]) -> Iterator[str]:
    yield _row("seconds to the answer", _PERCENTS)
    for kind, times in report["latency_seconds"].items():
        yield _row(kind, [f"{times[name]:.3f}" for name in _PERCENTS])


def _counts(report: dict[str, Any]) -> Iterator[str]:
    lost, seen, told = report["lost"], report["runtime"], report["told"]
    peak = max(seen["peaks"].values())
    yield f"lost with killed workers: {lost['requests']} of {lost['held_by_the_killed']} held"
    yield f"counted by clients and not by metrics: {report['metrics']['missing']}"
    yield f"most at a time: {peak} generations of a model, {seen['peak_loaded']} models in memory"
    yield f"loads: {told['loads']} told, {seen['totals']['loads']} seen by the runtime"
    yield f"evictions: {told['evictions']} told, {seen['totals']['unloads']} seen by the runtime"


def _growth(report: dict[str, Any]) -> Iterator[str]:
    known = {name: sizes for name, sizes in report["growth"].items() if sizes is not None}
    sizes = list(known.values())
    yield _row("at rest", known)
    for who in ("master", "workers"):
        for name in sizes[0][who]:
            yield _row(f"{who}: {name}", [each[who][name] for each in sizes])
    for name in ("state_files", "state_bytes"):
        yield _row(name, [each[name] for each in sizes])


def _validation(report: dict[str, Any]) -> Iterator[str]:
    for verdict in report["verdicts"]:
        yield f"{'kept  ' if verdict['kept'] else 'BROKEN'}  {verdict['promise']}"
        yield from (f"          {breach}" for breach in verdict["breaches"][:_SHOWN])


def _row(name: str, cells: Iterable[object]) -> str:
    return f"{name:32}" + "".join(f"{cell!s:>10}" for cell in cells)
