"""What was lost, by place and reason: every sample and every row that went in and did not come out.

What a place was given is what it kept, what it combined with something else, and what stands here.
"""

from typing import Final

from dxad.runtime.metrics import Metrics

__all__ = ["LOSSES", "Ledger"]

LOSSES: Final = {
    "queue": "samples that came while too many waited to be read",
    "waiting": "samples that came while too many waited for their slots to end",
    "ahead": "samples whose device's clock ran more than a minute ahead",
    "late": "samples that came after their slot was sealed, and had nothing to fill there",
    "too_old": "samples of slots that the ring does not hold any more",
    "overwritten": "rows that the rings forgot before the pipeline read them; slots, before a feature did",
    "backlog": "rows that were passed over because too many waited for the pipeline",
    "failed": "rows that were being scored when a bug ended it",
}
"""Every reason there is, and what is lost by it."""


class Ledger:
    """The losses of one place, such as `sources.plc`; they stand in `dxad_lost_total` too."""

    def __init__(self, metrics: Metrics, place: str) -> None:
        self._counters = {
            reason: metrics.counter("dxad_lost_total", place=place, reason=reason) for reason in LOSSES
        }
        self._seen = dict.fromkeys(LOSSES, 0)

    def lose(self, reason: str, n: int) -> None:
        """Write down that `n` were lost; `reason` is one of `LOSSES`."""
        self._counters[reason].add(n)

    def follow(self, reason: str, total: int) -> None:
        """Write down what a count that somebody else keeps has grown by since the last call."""
        self._counters[reason].add(total - self._seen[reason])
        self._seen[reason] = total

    @property
    def total(self) -> int:
        """How many were lost here."""
        return sum(each.value for each in self._counters.values())

    def snapshot(self) -> dict[str, int]:
        """By reason, how many were lost; nothing for a reason that never came up."""
        return {reason: each.value for reason, each in self._counters.items() if each.value}
