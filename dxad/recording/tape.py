"""Rows of several rings, as a daemon hands them out, side by side in the order of time."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from dxad.types import F8, I8, U1, Document, State

__all__ = ["Tape", "Track", "Wall"]

_STEP_NS: Final = 1_000_000
"""The wall clock reads a little differently each time; when it moves by more than this, it was set."""


class Wall:
    """What lies between stream time and wall time: one number for all rings until the clock is set."""

    def __init__(self) -> None:
        self._boot = ""
        self._offset = 0

    def offset(self, answer: Document) -> int:
        """Nanoseconds from the stream time of this answer's daemon to UTC."""
        told: int = answer["utc_ns"] - answer["first"] * answer["period_ns"]
        if answer["boot"] != self._boot or abs(told - self._offset) > _STEP_NS:
            self._boot, self._offset = answer["boot"], told
        return self._offset


class Track:
    """One ring, and how far it has been followed."""

    def __init__(self, name: str, head: Document, wall: Wall) -> None:
        """Follow the ring called `name`, of which `head` is an answer without rows, from its next slot on."""
        self.name = name
        self.channels = tuple(each["id"] for each in head["channels"])
        self.period: int = head["period_ns"]
        self.cursor: int = head["sealed"]
        self.lost = 0
        """Rows that were gone before they were fetched, or that a daemon which was away has not sealed."""
        self._boot: str = head["boot"]
        self._wall = wall
        self._offset = wall.offset(head)
        self._times: list[I8] = []
        self._values: list[F8] = []
        self._states: list[U1] = []
        self._fresh = True

    def begin(self, at: int) -> None:
        """Follow it from this stream time on."""
        self.cursor = -(-at // self.period)

    @property
    def reached(self) -> int:
        """The UTC time, in nanoseconds, up to which everything is here."""
        return self.cursor * self.period + self._offset

    def take(self, answer: Document) -> int:
        """Add the rows of an answer to a question from `cursor` on; returns how many they are."""
        offset = self._wall.offset(answer)
        if answer["boot"] != self._boot:
            missed = (answer["oldest"] * self.period + offset - self.reached) // self.period
            self._boot, self._offset, self.cursor = answer["boot"], offset, answer["oldest"]
            self.lost += max(0, missed)
            self._fresh = True
            return 0
        self._offset = offset
        self.lost += answer["lost"]
        rows = len(answer["states"])
        if rows:
            slots = answer["first"] + np.arange(rows, dtype=np.int64)
            shape = (rows, len(self.channels))
            values = np.array(answer["values"], dtype=np.float64).reshape(shape)
            digits = np.frombuffer("".join(answer["states"]).encode(), dtype=np.uint8).reshape(shape)
            self._keep(slots * self.period + self._offset, values, digits - np.uint8(ord("0")))
        self.cursor = answer["next"]
        return rows

    def _keep(self, times: I8, values: F8, states: U1) -> None:
        if self._fresh:  # what is held when the recording begins came before it: it would be missing for ever
            states = states.copy()
            first = states[0]
            first[first == State.HELD] = State.GOOD
            self._fresh = False
        self._times.append(times)
        self._values.append(values)
        self._states.append(states)

    def until(self, utc: int) -> tuple[I8, F8, U1]:
        """Hand over the rows before this time."""
        width = len(self.channels)
        times = np.concatenate([np.empty(0, dtype=np.int64), *self._times])
        values = np.concatenate([np.empty((0, width)), *self._values])
        states = np.concatenate([np.empty((0, width), dtype=np.uint8), *self._states])
        due = times < utc
        self._times, self._values, self._states = [times[~due]], [values[~due]], [states[~due]]
        return times[due], values[due], states[due]


class Tape:
    """Several tracks; a row for each time at which one of them has one."""

    def __init__(self, tracks: Sequence[Track]) -> None:
        """Begin all tracks together, where a slot of every one of them begins: a replay's grids do so too."""
        self.tracks = tuple(tracks)
        self.columns = tuple(name for track in tracks for name in track.channels)
        common = math.lcm(*(track.period for track in tracks))
        latest = max(track.cursor * track.period for track in tracks)
        begin = -(-latest // common) * common
        for track in tracks:
            track.begin(begin)
        self.begin_utc = max(track.reached for track in tracks)
        """The time of the first row, UTC nanoseconds."""

    @property
    def lost(self) -> int:
        """Rows of any track."""
        return sum(track.lost for track in self.tracks)

    def ready(self, until: int | None = None) -> tuple[I8, F8, U1]:
        """The rows before `until` that every track has reached.

        Returns:
            UTC nanoseconds (n,), values and states (n, columns).
        """
        reached = min(track.reached for track in self.tracks)
        parts = [track.until(reached if until is None else min(reached, until)) for track in self.tracks]
        times = np.unique(np.concatenate([part[0] for part in parts]))
        values = np.full((len(times), len(self.columns)), np.nan)
        states = np.full(values.shape, State.EMPTY, dtype=np.uint8)
        column = 0
        for mine, part_values, part_states in parts:
            stop = column + part_values.shape[1]
            places = np.searchsorted(times, mine)
            values[places, column:stop] = part_values
            states[places, column:stop] = part_states
            column = stop
        return times, values, states
