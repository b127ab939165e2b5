"""Rows of several rings, joined on one pipeline's grid.

    ring 100 ms ───────────────┐
    ring  10 ms ─ feature 100ms┼─▶ Frame ─▶ rows of all channels, 100 ms
    ring   1 s  ───────────────┘

Rings of any periods are joined (`join`). A row is complete when every equal or finer ring has sealed it, so a
slow channel never delays a fast one.
"""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np

from dxad.join import LOOKED_BACK, Feed, Part
from dxad.ring.ringbuffer import RingBuffer
from dxad.types import I8, U1, Bools, Overflow, Reason, Rows, Schema, State, Transform

__all__ = ["CELLS_AT_ONCE", "Feature", "Feed", "Frame", "Loss"]

CELLS_AT_ONCE: Final = 1 << 18
"""Cells of a finer ring that are read in one go, at least those of a row: bounds the memory of a catch-up."""


Loss = Literal["overwritten", "backlog"]
"""Why a row was passed over: the ring has moved on, or too many waited."""


class Feature:
    """Runs a transform on one ring's rows at their own rate; its results are a ring again."""

    def __init__(self, feed: Feed, transform: Transform, schema: Schema, *, slots: int) -> None:
        """Keep `slots` rows of `schema`, what `transform.outputs` made of the feed's channels."""
        self._feed = feed
        self._transform = transform
        self._cursor = feed.ring.sealed
        self._columns = feed.chosen
        self.lost = 0
        """Slots of the source's ring that were overwritten before they were read."""
        self._at_once = max(
            1, min(slots * schema.period // feed.ring.period, CELLS_AT_ONCE // len(feed.columns))
        )
        self._origins = tuple(_origins(channel.id, feed) for channel in schema.channels)
        start = feed.ring.sealed * feed.ring.period // schema.period
        self.ring = RingBuffer(schema.channels, period=schema.period, slots=slots, start=start)

    @property
    def transform(self) -> Transform:
        """What runs on the rows."""
        return self._transform

    @property
    def behind(self) -> bool:
        """Whether the source's ring has rows that were not taken in."""
        return self._feed.ring.sealed > self._cursor

    def advance(self) -> None:
        """Take in what the source's ring has sealed since then, a ring of results at a time."""
        while self.behind:
            self._advance(min(self._feed.ring.sealed, self._cursor + self._at_once))

    def _advance(self, stop: int) -> None:
        source = self._feed.ring
        reading = source.read(self._cursor, stop, self._columns)
        self._cursor = reading.first + len(reading.values)
        if reading.lost:
            self.lost += reading.lost
            source.overwritten += reading.lost
            self._forget(reading.first)
        if not len(reading.values):
            return
        made = self._transform.apply(Rows(reading.first, source.period, reading.values, reading.states))
        known = max(0, self.ring.sealed - made.first)
        if known < len(made):
            made = made.part(known, len(made))
            self.ring.append(made.first, made.values, made.states, self._reasons(made))

    def _reasons(self, made: Rows) -> U1 | None:
        """(n, channels) of `Reason`: STUCK where there is no result since what it is made of is stuck."""
        none = (made.states == State.EMPTY) | (made.states == State.BAD)
        if not none.any() or not self._stuck(made.first + len(made)).any():
            return None
        reasons = np.zeros(made.states.shape, dtype=np.uint8)
        for place in np.flatnonzero(none.any(axis=1)).tolist():
            stuck = self._stuck(made.first + place + 1)
            of_stuck = np.array([stuck[origins].any() for origins in self._origins])
            reasons[place, none[place] & of_stuck] = Reason.STUCK
        return reasons

    def _forget(self, before: int) -> None:
        """Rows were overwritten: pass over as many empty ones as no transform's memory reaches across."""
        source = self._feed.ring
        first = before - source.slots
        while first < before:
            shape = (min(self._at_once, before - first), len(self._feed.columns))
            nothing = Rows(first, source.period, np.full(shape, np.nan), np.zeros(shape, dtype=np.uint8))
            self._transform.apply(nothing)
            first += len(nothing)

    def _stuck(self, stop: int) -> Bools:
        """Which channels (inputs,) the source calls stuck before result `stop` begins."""
        source = self._feed.ring
        slot = stop * self.ring.period // source.period
        stuck: Bools = source.last_reasons(slot, LOOKED_BACK, self._columns) == Reason.STUCK
        return stuck


def _origins(result: str, feed: Feed) -> I8:
    """The inputs that a result is of, by its name: one of `vib.x.rms`, all of a name that is none's."""
    of = [place for place, channel in enumerate(feed.channels) if result.startswith(f"{channel.id}.")]
    return np.array(of or range(len(feed.columns)), dtype=np.int64)


class Frame:
    """Reads the complete rows of its feeds, in order, each once."""

    def __init__(self, feeds: Sequence[Feed], *, period: int) -> None:
        """Join feeds of any periods into rows `period` nanoseconds apart."""
        self.schema = Schema(tuple(channel for feed in feeds for channel in feed.channels), period)
        self.losses: dict[Loss, int] = {"overwritten": 0, "backlog": 0}
        """Rows that were passed over, by reason."""
        self._parts = tuple(Part(feed, period) for feed in feeds)
        self._at_once = max(1, min(CELLS_AT_ONCE // part.cells_per_row for part in self._parts))
        self._paced = tuple(part.ring for part in self._parts if not part.coarse) or tuple(
            part.ring for part in self._parts
        )
        self._next = max(-(-part.ring.sealed * part.ring.period // period) for part in self._parts)
        self._shed: tuple[int, int] | None = None
        """Rows that wait and will be passed over: from, to."""
        self._every = 1
        """Of so many stretches of rows, one is read."""
        self._owed = 0
        """Rows behind those just read that are passed over before the next."""

    @property
    def next(self) -> int:
        """The row that will be read next, if it is not overwritten before."""
        return self._next

    def stuck_at(self, row: int) -> Bools:
        """Which channels (channels,) their sources call stuck in this row, see `ring.samplecheck`."""
        reasons = np.concatenate([part.reasons(row) for part in self._parts])
        stuck: Bools = reasons == Reason.STUCK
        return stuck

    def begin(self, row: int) -> None:
        """Leave out the rows before `row`: somebody else has read them."""
        self._next = max(self._next, row)

    @property
    def lost(self) -> int:
        """How many rows were passed over."""
        return sum(self.losses.values())

    @property
    def complete(self) -> int:
        """The first row that is not complete yet."""
        period = self.schema.period
        return min(ring.sealed * ring.period // period for ring in self._paced)

    @property
    def waiting(self) -> int:
        """How many complete rows have not been read."""
        return max(0, self.complete - self._next - self._owed)

    def shed(self, most: int, overflow: Overflow) -> None:
        """Let no more than `most` rows wait: pass over the others as `overflow` says; they count as lost.

        `drop_oldest` passes over the oldest at once, `drop_newest` over those behind the first `most`, `thin`
        over all but every n-th stretch of rows that is read in one go, so that windows stay whole. Rows can
        make no wire wait: `block` is for sources.
        """
        self._pass_over_what_is_gone()
        excess = self.waiting - most
        self._every = 1
        if excess <= 0:
            return
        if overflow == "drop_oldest":
            self._pass_over(excess, "backlog")
        elif overflow == "drop_newest":
            begin, end = self._shed or (self._next + most, self.complete)
            self._shed = (begin, max(end, self.complete))
        else:
            self._every = -(-self.waiting // max(1, most))

    def _pass_over_what_is_gone(self) -> None:
        if self._owed:
            self._pass_over(self._owed, "backlog")
            self._owed = 0
        held = max(part.oldest_row for part in self._parts)
        if self._next < held:
            for part in self._parts:
                part.ring.overwritten += part.missed_before(self._next)
            self._pass_over(held - self._next, "overwritten")

    def _pass_over(self, rows: int, reason: Loss) -> None:
        self._next += rows
        self.losses[reason] += rows

    def read(self, most: int) -> Rows | None:
        """The next complete rows, `most` at most; None when there are none."""
        self._pass_over_what_is_gone()
        most = self._until_shed(min(most, self._at_once))
        first, stop = self._next, min(self.complete, self._next + most)
        if stop <= first:
            return None
        self._next = stop
        if self._every > 1:
            self._owed = min(self.waiting, (self._every - 1) * (stop - first))
        if len(self._parts) == 1:
            return Rows(first, self.schema.period, *self._parts[0].read(first, stop))
        values = np.empty((stop - first, len(self.schema.channels)))
        states = np.empty(values.shape, dtype=np.uint8)
        at = 0
        for part in self._parts:
            end = at + part.width
            values[:, at:end], states[:, at:end] = part.read(first, stop)
            at = end
        return Rows(first, self.schema.period, values, states)

    def _until_shed(self, most: int) -> int:
        """How many rows may be read before the next that is to be passed over; those due are passed over."""
        if self._shed is None:
            return most
        begin, end = self._shed
        if self._next < begin:
            return min(most, begin - self._next)
        self._shed = None
        self._pass_over(max(0, end - self._next), "backlog")
        return most
