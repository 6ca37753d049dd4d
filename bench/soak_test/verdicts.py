"""The verdicts: which promises a soak has found broken, and by what."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from bench.soaking.account import Account
from bench.soaking.clients import HUNG_UP, NEVER, Seen
from bench.soaking.growth import Growth
from bench.soaking.stage import CONCURRENT, DEADLINE_SECONDS, PLACES
from bench.soaking.trouble import Trouble
from tests.integration.helpers import LOST


@dataclass(frozen=True)
class Soak:
    """All that a soak has brought to light."""

    seed: int
    minutes: float
    seen: list[Seen]
    trouble: Trouble
    account: Account
    growth: Growth
    left_over: dict[str, Any]
    complaints: list[str]


@dataclass(frozen=True)
class Verdict:
    """One promise, and what broke it."""

    operation: str
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
        Verdict("limits hold at every instant", soak.trouble.records.breaches(PLACES, CONCURRENT)),
        Verdict("metrics add up to what clients counted", list(soak.account.breaches())),
        Verdict("loads and evictions are those of the runtime", _swaps(soak)),
        Verdict("nothing is left in flight or queued, and all is served", _left(soak)),
        Verdict("nothing has grown", soak.growth.breaches()),
        Verdict("the log has no error of the service's own", soak.complaints),
    ]


def _swaps(soak: Soak) -> list[str]:
    done, page, totals = soak.trouble.done, soak.account.after, soak.trouble.records.totals
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
    told = {"told by metrics": soak.account.after.at_work}
    return [f"{name}: {thing}" for name, thing in {**soak.left_over, **told}.items() if thing]


def _counted(counts: Counter[str]) -> list[str]:
    return [f"{count} times {what}" for what, count in counts.most_common()]
