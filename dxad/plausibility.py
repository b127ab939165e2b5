"""Channels that a pipeline's own transforms have called implausible: sensor trouble as well.

A `validate` or a `clip` makes cells BAD. A channel that stays so is told like one that is missing, as
`invalid`; what was in doubt before the transforms already is not told twice.
"""

from collections.abc import Sequence

import numpy as np

from dxad.incident.channelcheck import ChannelCheck, Trouble
from dxad.types import Bools, Channel, Doubting, Rows, Transform

__all__ = ["Plausibility"]


class Plausibility:
    """Watches the rows that come out of the transforms."""

    def __init__(
        self,
        transforms: Sequence[Transform],
        inputs: Sequence[Channel],
        outputs: Sequence[Channel],
        *,
        missing_rows: int,
    ) -> None:
        """Watch those channels of `outputs` that a transform judges, and that are among `inputs` too."""
        judged = {name for each in transforms if isinstance(each, Doubting) for name in each.doubted}
        before = {channel.id: place for place, channel in enumerate(inputs)}
        found = [
            (place, before[channel.id], channel)
            for place, channel in enumerate(outputs)
            if channel.id in judged and channel.id in before
        ]
        self._columns = [place for place, _, _ in found]
        self._before = [place for _, place, _ in found]
        self._check = ChannelCheck(
            [channel for _, _, channel in found], missing_rows=missing_rows, absent="invalid"
        )
        self.watches = bool(found)
        """Whether there is anything to watch."""

    def adjust(self, *, missing_rows: int) -> None:
        """Wait for so many rows from now on."""
        self._check.adjust(missing_rows=missing_rows)

    def apply(self, rows: Rows, doubtful: Bools) -> Bools:
        """What cannot be believed (n, channels + those watched), with what could not before."""
        mine = Rows(rows.first, rows.period, rows.values[:, self._columns], rows.states[:, self._columns])
        found = self._check.apply(mine) & ~doubtful[:, self._before]
        return np.concatenate((doubtful, found), axis=1)

    def troubles_at(self, row: int, known: Sequence[Trouble]) -> list[Trouble]:
        """What is wrong after this row of those watched last, beyond what is known."""
        told = {each.channel for each in known}
        return [each for each in self._check.troubles_at(row) if each.channel not in told]
