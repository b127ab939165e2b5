"""Rows of several rings, joined on one pipeline's grid.

    ring 100 ms ───────────────┐
    ring  10 ms ─ feature 100ms┼─▶ Frame ─▶ rows of all channels, 100 ms
    ring   1 s  ───────────────┘

A finer ring's newest value within a row counts, a coarser one's newest sealed value at the row's end. A row
is complete when every equal or finer ring has sealed it, so a slow channel never delays a fast one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dxad.ringbuffer import RingBuffer
from dxad.types import F8, U1, Channel, Rows, Schema, State, Transform

__all__ = ["Feature", "Feed", "Frame"]


@dataclass(frozen=True, slots=True)
class Feed:
    """Some columns of a ring."""

    ring: RingBuffer
    columns: tuple[int, ...]

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels of those columns."""
        return tuple(self.ring.channels[column] for column in self.columns)


class Feature:
    """Runs a transform on one ring's rows at their own rate; its results are a ring again."""

    def __init__(self, feed: Feed, transform: Transform, schema: Schema, *, slots: int) -> None:
        """Keep `slots` rows of `schema`, what `transform.outputs` made of the feed's channels."""
        self._feed = feed
        self._transform = transform
        self._cursor = feed.ring.sealed
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
        """Take in what the source's ring has sealed since the last call."""
        source, columns = self._feed.ring, list(self._feed.columns)
        reading = source.read(self._cursor, source.sealed)
        self._cursor = reading.first + len(reading.values)
        if reading.lost:
            self._forget(reading.first)
        if not len(reading.values):
            return
        made = self._transform.apply(
            Rows(reading.first, source.period, reading.values[:, columns], reading.states[:, columns])
        )
        fresh = made.first + np.arange(len(made)) >= self.ring.sealed
        if fresh.any():
            skipped = int(np.argmax(fresh))
            self.ring.append(made.first + skipped, made.values[skipped:], made.states[skipped:])

    def _forget(self, before: int) -> None:
        """Rows were overwritten: pass over as many empty ones as no transform's memory reaches across."""
        source = self._feed.ring
        shape = (source.slots, len(self._feed.columns))
        nothing = Rows(
            before - source.slots, source.period, np.full(shape, np.nan), np.zeros(shape, dtype=np.uint8)
        )
        self._transform.apply(nothing)


class Frame:
    """Reads the complete rows of its feeds, in order, each once."""

    def __init__(self, feeds: Sequence[Feed], *, period: int) -> None:
        """Join feeds whose periods divide `period` or are divided by it."""
        self.schema = Schema(tuple(channel for feed in feeds for channel in feed.channels), period)
        self.lost = 0
        """Rows that were overwritten before they were read."""
        self._feeds = tuple(feeds)
        self._next = max(-(-feed.ring.sealed * feed.ring.period // period) for feed in feeds)

    @property
    def next(self) -> int:
        """The row that will be read next, if it is not overwritten before."""
        return self._next

    @property
    def complete(self) -> int:
        """The first row that is not complete yet."""
        period = self.schema.period
        paced = [feed.ring for feed in self._feeds if feed.ring.period <= period]
        rings = paced or [feed.ring for feed in self._feeds]
        return min(ring.sealed * ring.period // period for ring in rings)

    @property
    def waiting(self) -> int:
        """How many complete rows have not been read."""
        return max(0, self.complete - self._next)

    def skip(self, rows: int) -> None:
        """Pass over so many of the oldest waiting rows, if any; they count as lost."""
        if rows > 0:
            self._next += rows
            self.lost += rows

    def read(self, most: int) -> Rows | None:
        """The next complete rows, `most` at most; None when there are none."""
        first, stop = self._next, min(self.complete, self._next + most)
        held = max(self._oldest(feed) for feed in self._feeds)
        if first < held:
            self.lost += held - first
            first, stop = held, max(held, min(self.complete, held + most))
        if stop <= first:
            self._next = first
            return None
        parts = [self._part(feed, first, stop) for feed in self._feeds]
        self._next = stop
        values = np.concatenate([part[0] for part in parts], axis=1)
        states = np.concatenate([part[1] for part in parts], axis=1)
        return Rows(first, self.schema.period, values, states)

    def _oldest(self, feed: Feed) -> int:
        """The first row that this feed can still fill."""
        if feed.ring.period > self.schema.period:
            return 0
        return -(-feed.ring.oldest * feed.ring.period // self.schema.period)

    def _part(self, feed: Feed, first: int, stop: int) -> tuple[F8, U1]:
        if feed.ring.period > self.schema.period:
            return self._coarse(feed, first, stop)
        times = self.schema.period // feed.ring.period
        reading = feed.ring.read(first * times, stop * times)
        columns = list(feed.columns)
        shape = ((stop - first) * times, len(columns))
        values, states = np.full(shape, np.nan), np.zeros(shape, dtype=np.uint8)
        skip = reading.first - first * times  # overtaken by the writer since `read` looked
        values[skip : skip + len(reading.values)] = reading.values[:, columns]
        states[skip : skip + len(reading.states)] = reading.states[:, columns]
        if times == 1:
            return values, states
        return _newest(
            values.reshape(stop - first, times, len(columns)),
            states.reshape(stop - first, times, len(columns)),
        )

    def _coarse(self, feed: Feed, first: int, stop: int) -> tuple[F8, U1]:
        """For each row the newest sealed slot that began before the row's end."""
        ring = feed.ring
        ends = (np.arange(first, stop) + 1) * self.schema.period
        slots = np.minimum((ends - 1) // ring.period, ring.sealed - 1)
        reading = ring.read(int(slots[0]), int(slots[-1]) + 1)
        columns = list(feed.columns)
        values = np.full((stop - first, len(columns)), np.nan)
        states = np.zeros((stop - first, len(columns)), dtype=np.uint8)
        there = (slots >= reading.first) & (slots >= ring.start)
        places = (slots - reading.first)[there]
        values[there] = reading.values[places][:, columns]
        states[there] = reading.states[places][:, columns]
        states[states == State.GOOD] = State.HELD
        return values, states


def _newest(values: F8, states: U1) -> tuple[F8, U1]:
    """Of each row's finer slots (n, times, channels) the newest one that holds a value, or the last."""
    times = values.shape[1]
    known = ~np.isnan(values)
    last = times - 1 - np.argmax(known[:, ::-1], axis=1)
    place = np.where(known.any(axis=1), last, times - 1)[:, None, :]
    return np.take_along_axis(values, place, axis=1)[:, 0], np.take_along_axis(states, place, axis=1)[:, 0]
