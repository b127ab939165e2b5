"""When a sample was taken, if all that is known is when it arrived.

`arrival` believes the arrival. `counted` is for streams that a device sends evenly: sample n is at t0 + n·p,
and t0 and p follow the arrivals slowly, so that the jitter of buses and buffers does not reach the grid.
"""

from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from dxad.types import I8

__all__ = ["ArrivalClock", "CountedClock", "SampleClock"]


class SampleClock(Protocol):
    """Gives samples their times."""

    def times(self, samples: npt.NDArray[np.void]) -> I8:
        """The stream times of consecutive samples, of dtype `SAMPLE`."""


class ArrivalClock:
    """A sample was taken when it arrived."""

    def times(self, samples: npt.NDArray[np.void]) -> I8:
        """The arrivals."""
        times: I8 = samples["arrival"].astype(np.int64)
        return times


class CountedClock:
    """Message n was taken at t0 + n·p.

    A second-order loop (a phase and a frequency correction per block, as in a phase-locked loop: F. Gardner,
    "Phaselock Techniques", ch. 2) follows the mean arrival. It starts again where a stream pauses or jumps.
    """

    _PHASE_GAIN: Final = 0.02
    _RATE_GAIN: Final = 0.00005
    _RATE_MOST: Final = 0.002
    """The device's clock is believed to be off by no more than this share."""

    def __init__(self, *, period: int, gap: int) -> None:
        """Expect a message each `period` ns; begin anew when one is more than `gap` ns off."""
        self._period = period
        self._gap = gap
        self._step = float(period)
        self._next = 0.0
        """The time of the next message."""
        self._message = -1
        """The number of the message before it."""
        self.slips = 0
        """How often it began anew after the first time."""

    def times(self, samples: npt.NDArray[np.void]) -> I8:
        """Each message's own time, the same for all its samples."""
        messages = samples["message"].astype(np.int64)
        arrivals = samples["arrival"].astype(np.float64)
        if self._message < 0:
            self._anchor(messages, arrivals)
        predicted = self._predict(messages)
        error = float(np.mean(arrivals - predicted))
        if abs(error) > self._gap:
            self.slips += 1
            self._anchor(messages, arrivals)
            predicted = self._predict(messages)
            error = 0.0
        passed = int(messages[-1]) - self._message
        self._message = int(messages[-1])
        gain = min(1.0, self._PHASE_GAIN * max(passed, 1) ** 0.5)
        self._step += self._RATE_GAIN * error
        bound = self._RATE_MOST * self._period
        self._step = min(max(self._step, self._period - bound), self._period + bound)
        self._next = float(predicted[-1]) + self._step + gain * error
        return predicted.astype(np.int64)

    def _predict(self, messages: I8) -> npt.NDArray[np.float64]:
        predicted: npt.NDArray[np.float64] = self._next + (messages - self._message - 1) * self._step
        return predicted

    def _anchor(self, messages: I8, arrivals: npt.NDArray[np.float64]) -> None:
        """The last message came just now; in the middle of its slot, so that jitter stays within slots."""
        middle = (arrivals[-1] // self._period + 0.5) * self._period
        self._message = int(messages[0]) - 1
        self._next = middle - (int(messages[-1]) - int(messages[0])) * self._step
