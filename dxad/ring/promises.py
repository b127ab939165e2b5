"""Channels that promise a rate, and whether they keep it: the age of data is their proof of life."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from dxad.fields import SourceSection
from dxad.types import NS_PER_S, Channel, Quality

__all__ = ["Promises"]

_MISSED: Final = 3
"""So many samples in a row may be missing before a channel is called silent."""
_NAMED_MOST: Final = 5


class Promises:
    """When each channel that promises a rate has brought a value last."""

    def __init__(self, section: SourceSection, channels: Sequence[Channel]) -> None:
        """Hold the channels to their `expect_every`, or the source's."""
        every = [
            section.expect_every if each.expect_every is None else each.expect_every
            for each in section.channel_sections().values()
        ]
        self.any = any(each is not None for each in every)
        """Whether there is anything to keep."""
        self._ids = [channel.id for channel in channels]
        self._patience = np.array([0 if each is None else _MISSED * each for each in every], dtype=np.int64)
        self._promised = self._patience > 0
        self._newest = np.zeros(len(every), dtype=np.int64)

    def begin(self, now: int) -> None:
        """There is a connection from now on: the time runs anew."""
        self._newest[:] = now

    def note(self, samples: npt.NDArray[np.void], now: int) -> None:
        """These came; what its device calls BAD is no value."""
        column, quality = samples["column"], samples["quality"]
        if np.count_nonzero(quality):
            column = column[quality != Quality.BAD]
        self._newest[column] = now

    def all_broken(self, now: int) -> bool:
        """Whether each channel that promises a rate is silent."""
        return self.any and bool((now - self._newest > self._patience)[self._promised].all())

    def broken(self, now: int) -> str:
        """Which channels are silent, and for how long; empty where none is."""
        age = now - self._newest
        silent = np.flatnonzero(self._promised & (age > self._patience))
        if not len(silent):
            return ""
        named = [f"{self._ids[at]} for {age[at] / NS_PER_S:.0f} s" for at in silent[:_NAMED_MOST].tolist()]
        more = f" and {len(silent) - _NAMED_MOST} more" if len(silent) > _NAMED_MOST else ""
        return f"nothing comes of {', '.join(named)}{more}"
