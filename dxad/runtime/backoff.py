"""How long to wait before the next attempt."""

import random

__all__ = ["Backoff"]


class Backoff:
    """Exponential delays with full jitter, so that a hundred gateways do not return as one.

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 (equal jitter).
    """

    def __init__(
        self, *, first_s: float = 0.25, most_s: float = 30.0, rng: random.Random | None = None
    ) -> None:
        """Start at `first_s` seconds, double up to `most_s`."""
        self._first_s = first_s
        self._most_s = most_s
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self.attempts = 0

    def next_s(self) -> float:
        """The seconds to wait now: between half and all of the doubled delay."""
        ceiling = min(self._most_s, self._first_s * 2.0 ** min(self.attempts, 30))
        self.attempts += 1
        return ceiling * self._rng.uniform(0.5, 1.0)

    def reset(self) -> None:
        """It worked: start small again."""
        self.attempts = 0
