"""When a sample was taken, if all that is known is when it arrived, and perhaps what its device says.

`arrival` believes the arrival. `counted` is for streams that a device sends evenly: sample n is at t0 + n·p,
and t0 and p follow the arrivals slowly, so that the jitter of buses and buffers does not reach the grid.
`device` believes the device's own stamps, mapped from its clock to ours.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from dxad.types import I8, NS_PER_S

__all__ = ["NO_TIME", "ArrivalClock", "CountedClock", "DeviceClock", "DeviceClocks", "SampleClock"]

NO_TIME: Final = int(np.iinfo(np.int64).min)
"""The time of a sample that is to be rejected."""


class SampleClock(Protocol):
    """Gives samples their times."""

    def times(self, samples: npt.NDArray[np.void]) -> I8:
        """The stream times of consecutive samples, of dtype `SAMPLE`; NO_TIME for those to reject."""


class ArrivalClock:
    """A sample was taken when it arrived."""

    def times(self, samples: npt.NDArray[np.void]) -> I8:
        """The arrivals."""
        times: I8 = samples["arrival"].astype(np.int64)
        return times


@dataclass(frozen=True, slots=True)
class _Other:
    """Another offset, that all stamps agree on by now."""

    delay: int
    since: int
    """An arrival."""
    went_back: bool
    """Whether the first of these stamps lay before one that was believed: no backlog does."""


class DeviceClock:
    """A sample was taken when its device says, on a clock of its own.

    The clocks' offset is the least delay seen, arrival - stamp, as in Cristian's algorithm (Distributed
    Computing 3, 1989): no message arrives before it was sent, and some hardly wait. It may grow by 500 ppm,
    more than any quartz drifts, so that it follows a device that is slow.

    The first stamps of all may be older than the clock they came from: a value that is reported when it
    changes is told to whoever subscribes, with the time of its last change. Until one has agreed with the
    offset 100 ms after it began, a stamp that is ahead is the better one, and the offset begins there.

    A stamp that is off by more than 100 ms moves nothing until all have been so for 5 s: then the device's
    clock was set, and the offset begins anew. Until then a stamp ahead counts as its arrival, and is rejected
    beyond 60 s; one that went back, or is zero, counts as its arrival. One that is behind but goes on is of a
    backlog, and keeps its own time.
    """

    _DRIFT: Final = 2000
    """One in so many: 500 ppm."""
    _FAR_NS: Final = NS_PER_S // 10
    _REJECT_NS: Final = 60 * NS_PER_S
    _RESET_NS: Final = 5 * NS_PER_S

    def __init__(self) -> None:
        self.resets = 0
        """How often the device's clock was set."""
        self._least: int | None = None
        """The least of delay - (arrival - begin) / 2000 so far."""
        self._begin = 0
        """The arrival at which the offset began."""
        self._at = 0
        """The newest arrival."""
        self._newest = 0
        """The newest stamp that was believed."""
        self._other: _Other | None = None
        self._confirmed = False
        """Whether some stamp has agreed with the offset, a while after it began."""

    @property
    def offsets(self) -> Mapping[str, int]:
        """The same by name, as of several devices; this one has none."""
        return {} if self.offset is None else {"": self.offset}

    @property
    def offset(self) -> int | None:
        """Stream time minus the device's time now, nanoseconds; None before the first stamp."""
        return None if self._least is None else self._offset_at(self._at)

    def times(self, samples: npt.NDArray[np.void]) -> I8:
        """Each sample's own time; that of its arrival where its stamp is of no use."""
        stamps, arrivals = samples["stamp"].astype(np.int64), samples["arrival"].astype(np.int64)
        times = arrivals.copy()
        stamped = np.flatnonzero(stamps > 0)
        if not len(stamped):
            return times
        begins = stamped[np.append(True, np.diff(samples["message"][stamped]) != 0)]
        if self._steady(stamps[begins], arrivals[begins]):
            times[stamped] = self._mapped(stamps[stamped], arrivals[stamped])
            return times
        ends = np.append(begins[1:], len(samples))
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
            mine = slice(begin, end)
            time = self._time(int(stamps[begin]), int(arrivals[begin]))
            times[mine] = np.where(stamps[mine] > 0, time, arrivals[mine])
        return times

    def _steady(self, stamps: I8, arrivals: I8) -> bool:
        """Whether all of these go on as before, so that `_mapped` can do them at once."""
        if self.offset is None or self._other is not None:
            return False
        off = arrivals - stamps - self.offset
        return bool(
            off.min() > -self._FAR_NS // 2
            and off.max() < self._FAR_NS // 2
            and arrivals[-1] - self._at < self._FAR_NS
            and (arrivals[1:] >= arrivals[:-1]).all()
        )

    def _mapped(self, stamps: I8, arrivals: I8) -> I8:
        """The times of stamps that go on as before; the same to the nanosecond as one after the other."""
        assert self._least is not None
        grown = (arrivals - self._begin) // self._DRIFT
        least = np.minimum.accumulate(np.minimum(arrivals - stamps - grown, self._least))
        self._least = int(least[-1])
        self._at = int(arrivals[-1])
        self._confirmed = self._confirmed or self._at - self._begin >= self._FAR_NS
        self._newest = max(self._newest, int(stamps.max()))
        times: I8 = stamps + least + grown
        return times

    def _time(self, stamp: int, arrival: int) -> int:
        """The time of one message, whatever its stamp."""
        delay = arrival - stamp
        if self._least is None or (not self._confirmed and delay < self._offset_at(arrival) - self._FAR_NS):
            self._anchor(delay, arrival, stamp)
        offset = self._offset_at(arrival)
        if abs(delay - offset) <= self._FAR_NS:
            self._other = None
            return int(self._mapped(np.array([stamp]), np.array([arrival]))[0])
        if self._other is None or abs(delay - self._other.delay) > self._FAR_NS:
            self._other = _Other(delay, arrival, went_back=stamp < self._newest - self._FAR_NS)
        elif arrival - self._other.since >= self._RESET_NS:
            self.resets += 1
            self._anchor(delay, arrival, stamp)
            self._confirmed = True
            return arrival
        if delay < offset - self._REJECT_NS:
            return NO_TIME
        if delay < offset or self._other.went_back:
            return arrival
        self._newest = max(self._newest, stamp)
        return stamp + offset

    def _offset_at(self, arrival: int) -> int:
        assert self._least is not None
        return self._least + (arrival - self._begin) // self._DRIFT

    def _anchor(self, delay: int, arrival: int, stamp: int) -> None:
        self._least, self._begin, self._at, self._newest, self._other = delay, arrival, arrival, stamp, None


class DeviceClocks:
    """A `DeviceClock` for each device of a source that has several: no two are set alike."""

    def __init__(self, devices: Callable[[], Sequence[str]]) -> None:
        """Ask `devices` which device each column is of; it may become known later."""
        self._devices = devices
        self._names: list[str] = []
        self._clocks: list[DeviceClock] = []
        self._group = np.empty(0, dtype=np.int64)
        """By column, the place of its device's clock."""
        self._known: dict[str, DeviceClock] = {}

    @property
    def offsets(self) -> Mapping[str, int]:
        """Stream time minus the device's time now, by its name, of those that are known."""
        return {name: each.offset for name, each in self._known.items() if each.offset is not None}

    def times(self, samples: npt.NDArray[np.void]) -> I8:
        """Each sample's own time, by the clock of its device."""
        names = list(self._devices())
        if names != self._names:
            self._regroup(names)
        group: I8 = self._group[samples["column"]]
        if (group == group[:1]).all():
            return self._clocks[int(group[0])].times(samples)
        times = np.empty(len(samples), dtype=np.int64)
        for each in np.unique(group).tolist():
            mine = group == each
            times[mine] = self._clocks[each].times(samples.compress(mine))
        return times

    def _regroup(self, names: list[str]) -> None:
        """Devices have come or gone; those that stay keep their clocks."""
        self._names = names
        self._known = {name: self._known.get(name) or DeviceClock() for name in dict.fromkeys(names)}
        self._clocks = list(self._known.values())
        place = {name: at for at, name in enumerate(self._known)}
        self._group = np.array([place[name] for name in names], dtype=np.int64)


class CountedClock:
    """Message n was taken at t0 + n·p.

    A second-order loop (a phase and a frequency correction per block, as in a phase-locked loop: F. Gardner,
    "Phaselock Techniques", ch. 2) follows the mean arrival. Where arrivals lie within a slot means nothing:
    each message has the slot after the one before it, and its time stays in the middle half of that.

    Once the loop has moved by three quarters of a slot, as the device's clock is off, a slot is left out or
    used twice: a hysteresis, so that neither jitter nor a phase on a border takes slots. It starts again
    where a stream pauses or jumps.
    """

    _PHASE_GAIN: Final = 0.02
    _RATE_GAIN: Final = 0.00005
    _RATE_MOST: Final = 0.002
    """The device's clock is believed to be off by no more than this share."""
    _STAY: Final = 0.75
    """Of a slot: how far the loop may move before a slot is left out or used twice."""

    def __init__(self, *, period: int, gap: int) -> None:
        """Expect a message each `period` ns; begin anew when one is more than `gap` ns off."""
        self._period = period
        self._gap = gap
        self._step = float(period)
        self._next = 0.0
        """What the loop has for the time of the next message."""
        self._slot = 0
        """The slot of the next message."""
        self._phase = 0.0
        """From the middle of a slot to what the loop had when it began: where arrivals happen to lie."""
        self._message = -1
        """The number of the message before it."""
        self.slips = 0
        """How often it began anew after the first time."""
        self.shifted = 0
        """How many slots were left out or used twice because the device's clock is not ours."""

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
        times = self._placed(messages, predicted)
        passed = int(messages[-1]) - self._message
        self._message = int(messages[-1])
        self._slot += passed
        gain = min(1.0, self._PHASE_GAIN * max(passed, 1) ** 0.5)
        self._step += self._RATE_GAIN * error
        bound = self._RATE_MOST * self._period
        self._step = min(max(self._step, self._period - bound), self._period + bound)
        self._next = float(predicted[-1]) + self._step + gain * error
        return times

    def _placed(self, messages: I8, predicted: npt.NDArray[np.float64]) -> I8:
        """Times in the middle half of consecutive slots, as near to `predicted` as that allows."""
        middle = (self._slot + messages - self._message - 1) * self._period + self._period // 2
        moved = predicted - middle - self._phase
        if abs(moved[0]) > self._STAY * self._period:
            slots = round(float(moved[0]) / self._period)
            self._slot += slots
            self.shifted += abs(slots)
            middle += slots * self._period
            moved -= slots * self._period
        quarter = self._period // 4
        times: I8 = middle + np.clip(moved, -quarter, quarter).astype(np.int64)
        return times

    def _predict(self, messages: I8) -> npt.NDArray[np.float64]:
        predicted: npt.NDArray[np.float64] = self._next + (messages - self._message - 1) * self._step
        return predicted

    def _anchor(self, messages: I8, arrivals: npt.NDArray[np.float64]) -> None:
        """The last message came just now, and has the slot of its arrival; the loop begins with no error."""
        since = messages - messages[0]
        self._message = int(messages[0]) - 1
        self._slot = int(arrivals[-1] // self._period) - int(since[-1])
        self._next = float(np.mean(arrivals - since * self._step))
        self._phase = self._next - (self._slot + 0.5) * self._period
