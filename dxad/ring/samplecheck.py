"""What samples cannot be, or hardly: judged one by one as they come, before they are folded or held.

In the channel's unit, and by the samples' own times:

- type: not finite                                                                              BAD
- range: `x < low` or `x > high`                                                                BAD
- stuck: the same to the bit for `stuck_after`, in samples that are no further apart            BAD
- rate: `|x - y| > max_rate · (t - s)`, with (s, y) the last sample that was believed           BAD
- noise: in the `noise_window` before, the scatter was above `max_noise`                  UNCERTAIN

A sample that was called bad by its device, its type or its range is nothing to the other three; nor is one
that is older than the one before it, as a backlog's are. A spike is too fast, and what comes after it is not;
a lasting step is believed once it is slow enough. A stuck sensor's values are not believed, so that whatever
it shows when it is well again is. Times are told apart by a period at most: samples that came together may
differ by what one period allows.

The scatter is that of differences between neighbours, so that a trend is none: σ² = Σ(x[i] - x[i-1])² / 2n.

Everything is vectorised over a block, with a state carried over for each channel, and the same to the bit
however samples are cut into blocks. A channel in whose block something is too fast or out of order is judged
sample by sample.

Sources: range, step and persistence tests of WMO-No. 488, "Guide to the Global Observing System", app. VI.2;
J. von Neumann, "Distribution of the Ratio of the Mean Square Successive Difference to the Variance", 1941.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from dxad.fields import NOISE_SAMPLES, ChannelSection
from dxad.types import F8, I8, NS_PER_S, U1, Bools, Quality, Reason

__all__ = ["SampleCheck"]

_LONG_AGO: Final = -(1 << 61)
_NEVER: Final = 1 << 61
_PAIRS_LEAST: Final = NOISE_SAMPLES - 1
_GOOD: Final = np.uint8(Reason.NONE)


@dataclass(slots=True)
class _State:
    """What is carried over, by column (columns,)."""

    value: F8
    """The newest value."""
    time: I8
    begun: I8
    """When that value came first."""
    believed: F8
    """The last value that was neither stuck nor too fast."""
    believed_at: I8
    slow: F8
    """The newest value that was not too fast: a spike is no noise."""
    slow_at: I8
    pairs: I8
    """How many neighbours the window has so far."""
    squares: F8
    """The sum of the squares of their differences."""
    noisy: Bools
    """Whether the window before was."""

    @classmethod
    def new(cls, columns: int) -> "_State":
        nothing, never = np.full(columns, np.nan), np.full(columns, _LONG_AGO, dtype=np.int64)
        return cls(
            nothing, never, never.copy(), nothing.copy(), never.copy(), nothing.copy(), never.copy(),
            np.zeros(columns, dtype=np.int64), np.zeros(columns), np.zeros(columns, dtype=np.bool_),
        )  # fmt: skip


class _Sorted(NamedTuple):
    """Samples in the order of their columns, then of their arrival."""

    column: I8
    value: F8
    time: I8
    begins: I8
    """Where each column's samples begin."""
    ends: I8
    """Where its last one is."""
    columns: I8
    """Which they are."""


class SampleCheck:
    """Judges the samples of one source."""

    def __init__(self, channels: Sequence[ChannelSection], *, period: int) -> None:
        """Judge by what is said of the channels; samples are `period` nanoseconds apart as a rule."""
        self._period = period
        self._low, self._high = np.array([each.range or (-np.inf, np.inf) for each in channels]).T
        self._ranged = any(each.range is not None for each in channels)
        self._rate = np.array([np.inf if each.max_rate is None else each.max_rate for each in channels])
        self._rate /= NS_PER_S
        self._stuck = np.array(
            [_NEVER if each.stuck_after is None else each.stuck_after for each in channels]
        )
        self._window = np.array(
            [_NEVER if each.max_noise is None else each.noise_window for each in channels]
        )
        self._noise = np.array([np.inf if each.max_noise is None else each.max_noise for each in channels])
        self._noise = 2.0 * self._noise**2
        watched = np.isfinite(self._rate) | (self._stuck < _NEVER) | (self._window < _NEVER)
        self._watched = watched if watched.any() else None
        self._all_watched = bool(watched.all())
        self._rates = bool(np.isfinite(self._rate).any())
        self._stills = bool((self._stuck < _NEVER).any())
        self._noises = bool((self._window < _NEVER).any())
        self._state = _State.new(len(channels))

    def apply(self, samples: npt.NDArray[np.void], times: I8) -> npt.NDArray[np.void]:
        """Mark what is not to be believed.

        Args:
            samples: of dtype `SAMPLE`, in the order of their arrival.
            times: (n,) when each was taken, nanoseconds.

        Returns:
            the samples themselves where all are good, else a copy.
        """
        finite = np.isfinite(samples["value"])
        if not self._ranged and self._watched is None and finite.all():
            return samples
        value = samples["value"].copy()
        wrong = ~finite
        column = None
        if self._ranged:
            column = samples["column"]
            wrong |= (value < self._low[column]) | (value > self._high[column])
        given = samples["quality"]
        clean = not given.any()
        if not clean:
            wrong &= given != Quality.BAD
        reasons = self._suspected(samples, value, times, wrong if clean else wrong | (given == Quality.BAD))
        some_wrong = wrong.any()
        if not some_wrong and reasons is None:
            return samples
        samples = samples.copy()
        if some_wrong:
            samples["reason"][wrong] = np.where(np.isfinite(value[wrong]), Reason.RANGE, Reason.TYPE)
            samples["quality"][wrong] = Quality.BAD
        if reasons is not None:
            bad = (reasons == Reason.STUCK) | (reasons == Reason.RATE)
            noisy = (reasons == Reason.NOISE) & (samples["quality"] == Quality.GOOD)
            samples["quality"][bad] = Quality.BAD
            samples["quality"][noisy] = Quality.UNCERTAIN
            samples["reason"][bad | noisy] = reasons[bad | noisy]
        return samples

    def _suspected(self, samples: npt.NDArray[np.void], value: F8, times: I8, out: Bools) -> U1 | None:
        """(n,) of `Reason`: STUCK, RATE, NOISE or NONE; None where all are NONE.

        Args:
            samples: as in `apply`.
            value: (n,) theirs.
            times: (n,)
            out: (n,) those that are nothing to these checks.
        """
        if self._watched is None:
            return None
        column = samples["column"].astype(np.int64)
        if not self._all_watched:
            out = out | ~self._watched[column]
        places = np.flatnonzero(~out)
        if not len(places):
            return None
        column = column[places]
        order = np.argsort(column, kind="stable")
        places, column = places[order], column[order]
        begins = np.flatnonzero(np.append(True, column[1:] != column[:-1]))
        ends = np.append(begins[1:], len(column)) - 1
        found = self._judged(_Sorted(column, value[places], times[places], begins, ends, column[begins]))
        if not found.any():
            return None
        reasons = np.zeros(len(samples), dtype=np.uint8)
        reasons[places] = found
        return reasons

    def _judged(self, of: _Sorted) -> U1:
        """Judge all columns at once; those in which something happens again, one sample after the other."""
        state, at = self._state, of.columns
        before, then = _shifted(of, of.value, state.value), _shifted(of, of.time, state.time)
        apart = of.time - then
        with np.errstate(over="ignore"):
            stuck, begun = self._stuck_since(of, before, apart)
            fast, believed, believed_at = self._too_fast(of, stuck)
            odd = (apart < 0) | fast
            found = np.where(stuck, np.uint8(Reason.STUCK), _GOOD)
            noise = self._noisy(of) if self._noises else None
        if noise is not None:
            found[noise[0] & (found == _GOOD)] = Reason.NOISE
        calm: Bools | slice = slice(None)
        if odd.any():
            calm = ~np.logical_or.reduceat(odd, of.begins)
            for place in np.flatnonzero(~calm).tolist():
                mine = slice(int(of.begins[place]), int(of.ends[place]) + 1)
                found[mine] = self._one_by_one(int(at[place]), of.value[mine], of.time[mine])
            at = at[calm]
        state.value[at], state.time[at] = of.value[of.ends][calm], of.time[of.ends][calm]
        state.begun[at] = begun[calm]
        state.believed[at], state.believed_at[at] = believed[calm], believed_at[calm]
        if noise is not None:
            state.slow[at], state.slow_at[at] = state.value[at], state.time[at]
            state.pairs[at], state.squares[at], state.noisy[at] = (each[calm] for each in noise[1:])
        return found

    def _stuck_since(self, of: _Sorted, before: F8, apart: I8) -> tuple[Bools, I8]:
        """Which samples are stuck, and since when each column has shown its newest value."""
        if not self._stills:
            return np.zeros(len(apart), dtype=np.bool_), of.time[of.ends]
        limit = self._stuck[of.column]
        same = (of.value == before) & (apart <= limit)
        if not same.any():
            return same, of.time[of.ends]
        since = of.time.copy()
        since[of.begins] = np.where(same[of.begins], self._state.begun[of.columns], since[of.begins])
        fresh = ~same
        fresh[of.begins] = True
        place = np.maximum.accumulate(np.where(fresh, np.arange(len(since)), 0))
        begun = since[place]
        return same & (of.time - begun >= limit), begun[of.ends]

    def _too_fast(self, of: _Sorted, stuck: Bools) -> tuple[Bools, F8, I8]:
        """Which samples came too fast, and each column's newest that was believed, if none did."""
        state, place = self._state, np.arange(len(stuck), dtype=np.int64)
        if not self._rates:
            return np.zeros(len(stuck), dtype=np.bool_), of.value[of.ends], of.time[of.ends]
        if stuck.any():
            place = np.maximum.accumulate(np.where(stuck, -1, place))
            place[place < np.repeat(of.begins, np.diff(np.append(of.begins, len(place))))] = -1
        before = _shifted(of, place, np.full(len(state.value), -1, dtype=np.int64))
        unknown = before < 0
        reference = np.where(unknown, state.believed[of.column], of.value[before])
        since = np.where(unknown, state.believed_at[of.column], of.time[before])
        time = np.maximum(of.time - since, self._period)
        fast: Bools = np.absolute(of.value - reference) > self._rate[of.column] * time
        newest = place[of.ends]
        none = newest < 0
        believed = np.where(none, state.believed[of.columns], of.value[newest])
        return fast, believed, np.where(none, state.believed_at[of.columns], of.time[newest])

    def _noisy(self, of: _Sorted) -> tuple[Bools, I8, F8, Bools]:
        """Which samples come after a noisy window; and each column's pairs, squares and verdict so far.

        Sums are made by `bincount`, which adds in order, each beginning with what was carried over.
        """
        state, at = self._state, of.columns
        before, then = _shifted(of, of.value, state.slow), _shifted(of, of.time, state.slow_at)
        width = self._window[of.column]
        window, earlier = of.time // width, then // width
        within = window == earlier
        opens = ~within
        opens[of.begins] = True
        group = np.cumsum(opens) - 1
        first = group[of.begins]
        goes_on = within[of.begins]
        difference = np.where(within, of.value - before, 0.0)
        groups = int(group[-1]) + 1
        carried = np.where(goes_on, state.squares[at], 0.0)
        each = np.concatenate((carried, difference * difference))
        squares = np.bincount(np.concatenate((first, group)), each, groups).astype(np.float64)
        pairs = np.bincount(group, within, minlength=groups).astype(np.int64)
        pairs[first] += np.where(goes_on, state.pairs[at], 0)
        loud = self._loud(squares, pairs, of.column[opens])
        follows = (window == earlier + 1)[opens]
        noisy = np.empty(groups, dtype=np.bool_)
        noisy[1:] = loud[:-1]
        noisy[first] = self._loud(state.squares[at], state.pairs[at], at)
        noisy &= follows
        noisy[first] = np.where(goes_on, state.noisy[at], noisy[first])
        last = group[of.ends]
        return noisy[group], pairs[last], squares[last], noisy[last]

    def _loud(self, squares: F8, pairs: I8, column: I8) -> Bools:
        loud: Bools = (pairs >= _PAIRS_LEAST) & (squares > self._noise[column] * np.maximum(pairs, 1))
        return loud

    def _one_by_one(self, column: int, values: F8, times: I8) -> U1:
        """The same for consecutive samples of one column, whatever they are."""
        state = self._state
        stuck_after, width = int(self._stuck[column]), int(self._window[column])
        rate, limit = float(self._rate[column]), float(self._noise[column])
        value, then, begun = float(state.value[column]), int(state.time[column]), int(state.begun[column])
        believed, believed_at = float(state.believed[column]), int(state.believed_at[column])
        pairs, squares = int(state.pairs[column]), float(state.squares[column])
        noisy = bool(state.noisy[column])
        found = np.zeros(len(values), dtype=np.uint8)
        slow, slow_at = float(state.slow[column]), int(state.slow_at[column])
        for place, (here, now) in enumerate(zip(values.tolist(), times.tolist(), strict=True)):
            if now < then:
                continue
            if here != value or now - then > stuck_after:
                begun = now
            value, then = here, now
            stuck = now - begun >= stuck_after
            if stuck:
                found[place] = Reason.STUCK
            elif abs(here - believed) > rate * max(now - believed_at, self._period):
                found[place] = Reason.RATE
                continue
            else:
                believed, believed_at = here, now
            if now // width == slow_at // width:
                pairs, squares = pairs + 1, squares + (here - slow) * (here - slow)
            else:
                loud = pairs >= _PAIRS_LEAST and squares > limit * pairs
                noisy = loud and now // width == slow_at // width + 1
                pairs, squares = 0, 0.0
            slow, slow_at = here, now
            if noisy and not stuck:
                found[place] = Reason.NOISE
        state.slow[column], state.slow_at[column] = slow, slow_at
        state.value[column], state.time[column], state.begun[column] = value, then, begun
        state.believed[column], state.believed_at[column] = believed, believed_at
        state.pairs[column], state.squares[column], state.noisy[column] = pairs, squares, noisy
        return found


_Cells = TypeVar("_Cells", F8, I8)


def _shifted(of: _Sorted, each: _Cells, carried: _Cells) -> _Cells:
    """What the sample before each had; of a column's first, what was carried over."""
    before = np.empty_like(each)
    before[1:] = each[:-1]
    before[of.begins] = carried[of.columns]
    return before
