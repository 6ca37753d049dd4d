"""The report of a soak test, as JSON and as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from bench.soak_test.load import RequestOutcome
from bench.soak_test.verdicts import SoakResult, verdicts
from tests.integration.helpers import LOST, percentile

_SHOWN = 5
_PERCENTS = {"p50": 50, "p95": 95, "p99": 99, "max": 100}


def document(soak: SoakResult) -> dict[str, Any]:
    """Return the report as a JSON document."""
    checked, check, injector = verdicts(soak), soak.metrics_check, soak.fault_injector
    return {
        "kept": all(verdict.kept for verdict in checked),
        "verdicts": [{**asdict(verdict), "kept": verdict.kept} for verdict in checked],
        "seed": soak.seed,
        "minutes": soak.minutes,
        "requests": len(soak.outcomes),
        "outcomes": _outcomes(soak.outcomes),
        "latency_seconds": _latencies(soak.outcomes),
        "trouble": dict(injector.done),
        "faults": dict(injector.faults),
        "lost": _lost(soak),
        "metrics": {"missing": check.missing, "taken_along": check.lost_with_worker},
        "runtime": injector.runtime_counters.document(),
        "told": {"loads": check.after.loads, "evictions": check.after.evictions},
        "growth": asdict(soak.growth),
    }


def _lost(soak: SoakResult) -> dict[str, int]:
    return {
        "requests": sum(each.status == LOST for each in soak.outcomes),
        "held_by_the_killed": sum(len(kill.ports) for kill in soak.fault_injector.kills),
        "most_by_one": max((len(kill.ports) for kill in soak.fault_injector.kills), default=0),
    }


def _kinds(outcomes: list[RequestOutcome]) -> list[str]:
    return sorted({each.kind for each in outcomes})


def _outcomes(outcomes: list[RequestOutcome]) -> dict[str, dict[str, int]]:
    counts = {
        kind: Counter(each.outcome for each in outcomes if each.kind == kind)
        for kind in _kinds(outcomes)
    }
    return {kind: dict(found.most_common()) for kind, found in counts.items()}


def _latencies(outcomes: list[RequestOutcome]) -> dict[str, dict[str, float]]:
    """Return the latency percentiles of all answered requests, including errors."""
    answered = [each for each in outcomes if each.status > 0]
    times = {
        kind: [each.seconds for each in answered if each.kind == kind] for kind in _kinds(answered)
    }
    return {
        kind: {name: round(percentile(found, percent), 3) for name, percent in _PERCENTS.items()}
        for kind, found in times.items()
    }


def text(report: dict[str, Any]) -> str:
    """Return the report as text."""
    parts = (_summary, _outcome_table, _latency_table, _counts, _growth, _verdict_lines)
    return "\n\n".join("\n".join(part(report)) for part in parts)


def _summary(report: dict[str, Any]) -> Iterator[str]:
    rate = report["requests"] / report["minutes"] / 60
    yield f"seed {report['seed']}, {report['minutes']:g} minutes"
    yield f"{report['requests']} requests, {rate:.0f} a second"
    yield "done: " + ", ".join(f"{count} x {kind}" for kind, count in report["trouble"].items())
    yield "faults: " + ", ".join(f"{n} x {kind}" for kind, n in sorted(report["faults"].items()))


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
    lost, runtime, counted = report["lost"], report["runtime"], report["told"]
    peak = max(runtime["peaks"].values())
    yield f"lost with killed workers: {lost['requests']} of {lost['held_by_the_killed']} open"
    yield f"counted by clients and not by metrics: {report['metrics']['missing']}"
    yield f"most at a time: {peak} generations of a model, {runtime['peak_loaded']} models loaded"
    loads, unloads = runtime["totals"]["loads"], runtime["totals"]["unloads"]
    yield f"loads: {counted['loads']} counted, {loads} seen by the runtime"
    yield f"evictions: {counted['evictions']} counted, {unloads} seen by the runtime"


def _growth(report: dict[str, Any]) -> Iterator[str]:
    measured = {name: sizes for name, sizes in report["growth"].items() if sizes is not None}
    sizes = list(measured.values())
    yield _row("idle", measured)
    for process in ("master", "workers"):
        for name in sizes[0][process]:
            yield _row(f"{process}: {name}", [each[process][name] for each in sizes])
    for name in ("state_files", "state_bytes"):
        yield _row(name, [each[name] for each in sizes])


def _verdict_lines(report: dict[str, Any]) -> Iterator[str]:
    for verdict in report["verdicts"]:
        yield f"{'kept  ' if verdict['kept'] else 'BROKEN'}  {verdict['promise']}"
        yield from (f"          {breach}" for breach in verdict["breaches"][:_SHOWN])


def _row(name: str, cells: Iterable[object]) -> str:
    return f"{name:32}" + "".join(f"{cell!s:>10}" for cell in cells)
