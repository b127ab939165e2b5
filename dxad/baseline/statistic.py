"""What one baseline knows of one regime."""

from typing import Protocol

from dxad.types import F8, I8, Document

__all__ = ["Statistic"]


class Statistic(Protocol):
    """Scores rows in order, one after the other, and may learn from those it does not find odd.

    Whatever it does to a row must not depend on the batch the row is in.
    """

    @property
    def ready(self) -> bool:
        """Whether it scores at least some rows."""

    def normal_after(self, rows: int) -> tuple[F8, F8] | None:
        """Mean and standard deviation in normal running, as they were within the rows scored last.

        Args:
            rows: after so many of them; 0 for before the first.

        Returns:
            Both (channels,), NaN where not known; None where it was not ready.
        """

    def score(self, times: I8, rows: F8) -> tuple[F8, F8]:
        """Score rows, and learn from those that are not above the limit.

        Args:
            times: (n,) nanoseconds on the stream clock at which the rows begin.
            rows: (n, channels); NaN where a value is bad: it is neither scored nor learned.

        Returns:
            The scores (n,), NaN where it cannot tell yet, and what each channel makes of them (n, channels).
        """

    def forgive(self) -> None:
        """A sensor was lying: what was summed up over the last rows is void; what is normal stays."""

    def state(self) -> Document:
        """All it has learned, in JSON without NaN."""
