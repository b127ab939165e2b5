"""Recorded rows, as if their devices were there now: CSV, NPZ or JSON lines (`dxad.recording`).

The rows come at the pace at which they were recorded, or so many times as fast, and from there on everything
is as with any source: the same ring, the same pipelines, the same sinks. Time is the gateway's: a row that
was recorded a second after the first comes a second after it, now, and at `speed = 10` after 100 ms. This is
what sets it apart from the command `dxad replay`, which runs a whole configuration in virtual time, tells no
sink, and gives the same answer to the byte.

At `speed = "max"` nothing waits for the clock: the source's time runs ahead of it, by the rows' own
distances, as fast as the ring can take them and readers can follow.
"""

import asyncio
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from dxad.errors import ConfigError, EndOfStream, NotConnected
from dxad.fields import ChannelSection, Identifier, SourceSection
from dxad.links import words
from dxad.plugin import Plugin
from dxad.recording import Piece, Recording, open_recording
from dxad.recording.columns import match
from dxad.recording.samples import samples_of
from dxad.runtime.clock import Clock
from dxad.runtime.worker import Worker
from dxad.types import I8, Block, Channel, Reason

__all__ = ["PLUGIN", "Config", "Replay", "ReplayChannel"]

_MAX_ROWS: Final = 1_000
"""At once, at most, where nothing tells how many the ring takes."""
_MAX_PAUSE_NS: Final = 100_000_000
"""Between two such lots: time for whoever reads the ring."""
_SHARE: Final = 4
"""Of what the ring keeps, one part in so many comes at once."""
_FOR_EVER: Final = int(np.iinfo(np.int64).max)


class ReplayChannel(ChannelSection):
    """One column of the recording."""

    column: str | None = Field(
        None, description="of the recording; default: the one with the channel's id or name"
    )


class Config(SourceSection):
    """`type = "replay"`, `path = "week.csv"`, `speed = 10`."""

    stamped = True

    type: Literal["replay"]
    path: Path = Field(
        strict=False, description="the recording: .npz, .jsonl or .ndjson; anything else is CSV"
    )
    speed: Annotated[float, Field(gt=0, le=100_000, strict=False, allow_inf_nan=False)] | Literal["max"] = (
        Field(1.0, description="so many times as fast as it was recorded; max: as fast as it can be taken in")
    )
    loop: bool = Field(
        False, description="begin again at the end, for ever; without it, the source ends there"
    )
    time: str | None = Field(
        None, description="the column with the time of each row; without it, one is looked for"
    )
    channels: dict[Identifier, ReplayChannel] = Field(min_length=1, description="by name")

    @model_validator(mode="after")
    def _in_step(self) -> Self:
        if self.clock == "device" and self.speed != 1:
            raise ValueError('clock: the times of rows are right for "device" at speed 1 alone')
        return self

    def channel_sections(self) -> Mapping[str, ReplayChannel]:
        """All channels, by name."""
        return self.channels


@dataclass(frozen=True, slots=True)
class _Rows:
    """What is still to come of a piece."""

    piece: Piece
    at: I8
    """(n,) when each row comes, nanoseconds after the first row of all."""
    due: I8
    """(n,) the same, but never before the row in front of it: rows may be out of order."""

    def split(self, count: int) -> tuple["_Rows", "_Rows"]:
        return self._part(slice(count)), self._part(slice(count, None))

    def _part(self, part: slice) -> "_Rows":
        bad = self.piece.bad
        piece = Piece(self.piece.times[part], self.piece.values[part], None if bad is None else bad[part])
        return _Rows(piece, self.at[part], self.due[part])


class Replay:
    """Reads a piece of the file at a time, on a thread, and lets its rows go when their time has come."""

    alive_until = _FOR_EVER
    """Whoever recorded had a session: what is reported by exception stays valid from row to row."""

    def __init__(self, name: str, config: Config, *, clock: Clock) -> None:
        self.channels: Sequence[Channel] = config.declared(name)
        self._name = name
        self._config = config
        self._clock = clock
        self._period = config.period
        self._worker: Worker | None = None
        self._recording: Recording | None = None
        self._pieces: Iterator[Piece] | None = None
        self._names: Sequence[str] = ()
        self._columns: Sequence[int] = ()
        self._rows: _Rows | None = None
        self._first: int | None = None
        """The time of the file's first row, UTC nanoseconds."""
        self._base = 0
        """The stream time of the first row of this round."""
        self._reached = 0
        """The latest row of this round, nanoseconds after the first."""
        self._step = self._period or 0
        """From the last row of a round to the first of the next: as from one row to the next."""
        self._messages = 0
        self._rejected = 0
        self._pause_until = 0

    @property
    def faults(self) -> Mapping[str, int]:
        """What could not be read of the file, over all rounds."""
        return {"lines": self._rejected} if self._rejected else {}

    async def connect(self) -> None:
        """Open the file at its begin.

        Raises:
            NotConnected: it is not there.
            ConfigError: it is no recording, or has not the columns that are wanted.
        """
        await self.close()
        self._worker = Worker(f"replay-{self._name}")
        try:
            await self._worker.run(self._open)
        except OSError as error:
            await self.close()
            raise NotConnected(f"{self._config.path}: {words(error)}") from error
        except ConfigError:
            await self.close()
            raise
        self._begin(self._clock.now())

    def _open(self) -> None:
        """On the worker's thread."""
        config = self._config
        config.path.open("rb").close()  # raises OSError if it is not there
        recording = open_recording(config.path, time=config.time)
        ids = [channel.id for channel in self.channels]
        given = {
            each.column: f"{self._name}.{name}"
            for name, each in config.channels.items()
            if each.column is not None
        }
        try:
            matched = match(recording.columns, ids, given)
        except ConfigError as error:
            raise ConfigError(f"{config.path}: {_in_config(str(error))}") from error
        if matched.missing:
            known = ", ".join(recording.columns)
            raise ConfigError(f"{config.path}: no column for {matched.missing[0]}; columns: {known}")
        self._names = [matched.column_of[each] for each in ids]
        self._columns = range(len(ids))
        self._recording = recording

    def _begin(self, at: int) -> None:
        """Another round, from this stream time on, or where the next slot begins."""
        period = self._period or 1
        self._base = -(-at // period) * period
        self._first, self._rows, self._pieces, self._reached = None, None, None, 0

    async def read(self) -> Block:
        """Wait for rows whose time has come.

        Raises:
            NotConnected: it is closed, or the file has gone.
            ConfigError: the file cannot be read any further.
            EndOfStream: that was the last row.
        """
        while True:
            rows = await self._waiting()
            if self._config.speed == "max":
                part, rest = await self._lot(rows)
                block = self._block(part)
            else:
                await self._clock.sleep_until(self._base + int(rows.due[0]))
                part, rest = self._due(rows)
                block = self._block(part)
            self._rows = rest if len(rest.piece) else None
            self._messages += len(part.piece)
            if len(block.samples):
                return block

    async def _waiting(self) -> _Rows:
        """Rows that were read and have not gone yet, at least one."""
        while self._rows is None:
            if self._worker is None:
                raise NotConnected("not connected")
            try:
                piece = await self._worker.run(self._next_piece)
            except OSError as error:
                raise NotConnected(f"{self._config.path}: {words(error)}") from error
            if piece is not None:
                self._rows = self._timed(piece) if len(piece) else None
                continue
            if self._first is None:
                raise ConfigError(f"{self._config.path}: has no rows")
            if not self._config.loop:
                raise EndOfStream(f"{self._config.path} has come to its end")
            await asyncio.sleep(0)  # a file of a few rows must not keep the loop
            self._begin(self._base + self._reached + self._step)
        return self._rows

    def _next_piece(self) -> Piece | None:
        """On the worker's thread: the next piece of the file; None at its end."""
        assert self._recording is not None
        if self._pieces is None:
            self._config.path.open("rb").close()  # raises OSError if it has gone
            self._pieces = iter(self._recording.pieces(self._names))
        piece = next(self._pieces, None)
        if piece is None:
            self._rejected += self._recording.faults.lines
        return piece

    def _timed(self, piece: Piece) -> _Rows:
        if self._first is None:
            self._first = int(piece.times[0])
        speed = 1.0 if self._config.speed == "max" else self._config.speed
        at = piece.times - self._first
        if speed != 1:
            at = np.rint(at / speed).astype(np.int64)
        due = np.maximum.accumulate(np.maximum(at, self._reached))
        if len(due) > 1 and self._period is None:
            self._step = int(np.median(np.diff(due)))
        self._reached = int(due[-1])
        return _Rows(piece, at, due)

    def _due(self, rows: _Rows) -> tuple[_Rows, _Rows]:
        """The rows that may go now, and the others."""
        now = self._clock.now()
        behind = now - self._base - int(rows.due[0])
        if behind > max(self._period or 0, _MAX_PAUSE_NS):  # a tape that was held up goes on where it was
            self._base += behind // (self._period or 1) * (self._period or 1)
        count = int(np.searchsorted(rows.due, now - self._base, "right"))
        return rows.split(max(1, count))

    async def _lot(self, rows: _Rows) -> tuple[_Rows, _Rows]:
        """As many rows as the ring and its readers take at once, and the others."""
        await self._clock.sleep_until(self._pause_until)
        if self._period is None:
            await asyncio.sleep(0)
            return rows.split(_MAX_ROWS)
        slots = max(1, self._config.keep // _SHARE // self._period)
        end = (int(rows.due[0]) // self._period + slots) * self._period
        count = int(np.searchsorted(rows.due, end, "left"))
        self._pause_until = self._clock.now() + _MAX_PAUSE_NS
        return rows.split(max(1, count))

    def _block(self, rows: _Rows) -> Block:
        piece = rows.piece
        samples = samples_of(
            piece.values,
            piece.bad,
            arrivals=self._base + (rows.due if self._config.clock == "device" else rows.at),
            messages=np.arange(self._messages, self._messages + len(piece), dtype=np.int64),
            columns=self._columns,
            stamps=piece.times,
        )
        bad = samples["reason"] == Reason.DEVICE
        if bad.any():  # what stands there is no number, whoever may have put it there
            samples["reason"][bad] = Reason.TYPE
        if self._config.speed != "max" or self._period is None:
            return Block(samples)
        return Block(samples, through=((self._base + int(rows.due[-1])) // self._period + 1) * self._period)

    async def close(self) -> None:
        """Close the file; safe twice, and without `connect`."""
        worker, self._worker = self._worker, None
        self._rows = None
        if worker is not None:
            await worker.run(self._let_go)  # behind a piece that is being read, but not on the loop
            worker.close()

    def _let_go(self) -> None:
        """On the worker's thread."""
        pieces, self._pieces, self._recording = self._pieces, None, None
        if isinstance(pieces, Generator):  # it has the file open
            pieces.close()


def _in_config(text: str) -> str:
    """What `match` says, in the words of a configuration."""
    head, _, _ = text.partition("; say which is which")
    return head.removeprefix("--map ") + ('; say `column = "..."`' if head != text else "")


PLUGIN = Plugin(Config, Replay)
