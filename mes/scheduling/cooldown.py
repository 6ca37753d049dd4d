"""The pauses after failures: each one twice as long as the one before."""

from __future__ import annotations

from dataclasses import dataclass

from mes.scheduling.registry import LoadFailure


@dataclass(frozen=True, slots=True)
class Cooldown:
    """The length of pauses.

    Args:
        seconds: The pause after the first failure.
        longest_seconds: The longest pause.
    """

    seconds: float = 10.0
    longest_seconds: float = 300.0

    def after(self, earlier: LoadFailure | None, detail: str, now: float) -> LoadFailure:
        """Return the record of one more failure, with the end of its pause."""
        failures = 1 if earlier is None else earlier.failures + 1
        # Far beyond any pause, where the power would be too large for a float.
        doubled: float = self.seconds * 2 ** min(failures - 1, 60)
        return LoadFailure(failures, now + min(doubled, self.longest_seconds), detail)
