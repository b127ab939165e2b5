"""Asks once per period for what is new; each row is a message."""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from numbers import Real
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import numpy as np

from dxad.errors import ConfigError, NotConnected
from dxad.recording.times import NO_TIME, Stamp
from dxad.ring.stage import Stage
from dxad.runtime.clock import Clock
from dxad.runtime.worker import Worker
from dxad.sources.sql.cursor import CursorFile
from dxad.sources.sql.overlap import Overlap
from dxad.sources.sql.section import Config
from dxad.types import NS_PER_S, Block, Channel, Quality, Reason

__all__ = ["Sql"]

_KEEP_EVERY: Final = 10 * NS_PER_S
"""Flash wears: the cursor is written so often at most."""
_AGAIN_MOST: Final = 10
"""So many times the rows of one query may be asked for again, with each query."""
_GRACE_S: Final = 1.0
"""So long after its timeout, a database that has not even said so is given up."""

T = TypeVar("T")


class _Table(Protocol):
    def open(self) -> Sequence[str]: ...
    def last(self) -> Any: ...
    def since(self, cursor: Any, most: int) -> Sequence[Sequence[Any]]: ...
    def interrupt(self) -> None: ...
    def close(self) -> None: ...


class Sql:
    """One query, its cursor, and the thread on which the database is spoken to."""

    def __init__(self, name: str, config: Config, *, clock: Clock, state_dir: Path | None = None) -> None:
        self.channels: Sequence[Channel] = config.declared(name)
        self._name = name
        self._config = config
        self._clock = clock
        self._period = config.period or NS_PER_S
        self._columns = [channel.column or key for key, channel in config.channels.items()]
        self._stage = Stage(config.rows * len(self._columns))
        self._worker: Worker | None = None
        self._table: _Table | None = None
        self._places: Mapping[str, int] = {}
        self._stamp: Stamp | None = None
        self._cursor: Any = None
        """The last value of the cursor's column that has been read; stays over a new connection."""
        self._overlap = None if config.overlap is None else Overlap(config.overlap, _AGAIN_MOST * config.rows)
        self._known = False
        """Whether it has been found out where the first query begins."""
        self._kept = None
        if state_dir is not None:
            path = state_dir / "sql" / f"{name}.state"
            self._kept = CursorFile(path, config.url, config.query, config.cursor)
        self._kept_at = 0
        self.alive_until = 0
        """When a query was answered last: a table that does not grow is no fault of the link."""
        self._due = 0
        """The slot of the next query."""

    async def connect(self) -> None:
        """Open the database, try the query, and find out where the rows begin.

        Raises:
            NotConnected: it is not there, or cannot be read now.
            ConfigError: the query is wrong, or has not the columns that are wanted.
        """
        await self.close()
        self._worker = Worker(f"sql-{self._name}")
        self._table = table = self._made()
        try:
            self._find(await self._answered(table.open, most_s=2 * self._timeout_s))
            await self._answered(self._begin)
        except (NotConnected, ConfigError):
            await self.close()
            raise
        self._due = -(-self._clock.now() // self._period)

    def _find(self, columns: Sequence[str]) -> None:
        """Note where each column stands.

        Raises:
            ConfigError: one that is wanted is not there.
        """
        self._places = {column: at for at, column in enumerate(columns)}
        missing = [each for each in self._wanted if each not in self._places]
        if missing:
            there = ", ".join(columns)
            raise ConfigError(f"{self._config.where}: the query has no column {missing[0]!r}; it has {there}")

    def _made(self) -> _Table:
        config = self._config
        if not config.on_server:
            from dxad.sources.sql.sqlite import SqliteTable  # noqa: PLC0415 - what is not used is not loaded

            return SqliteTable(Path(config.file), config.query, config.cursor, timeout_s=self._timeout_s)
        from dxad.sources.sql.postgres import PostgresTable  # noqa: PLC0415

        return PostgresTable(
            config.url, config.query, config.cursor, timeout_s=self._timeout_s,
            password=lambda: None if config.password is None else config.password.read(),
        )  # fmt: skip

    @property
    def _timeout_s(self) -> float:
        return self._config.timeout / NS_PER_S

    @property
    def _wanted(self) -> list[str]:
        further = [] if self._config.time is None else [self._config.time]
        return [*self._columns, self._config.cursor, *further]

    async def _answered(self, call: Callable[[], T], *, most_s: float = 0.0) -> T:
        """What the database says, on the worker's thread; the event loop goes on meanwhile.

        Raises:
            NotConnected: it says nothing for longer than it may.
        """
        assert self._worker is not None
        try:
            async with asyncio.timeout(max(self._timeout_s, most_s) + _GRACE_S):
                return await self._worker.run(call)
        except TimeoutError as error:
            raise NotConnected(f"{self._config.where}: no answer within {self._timeout_s:g} s") from error

    def _begin(self) -> None:
        """Find where to go on: a table whose cursor has gone back is another one, of which all is new."""
        assert self._table is not None
        last = self._table.last()
        if not self._known and self._kept is not None:
            self._cursor = self._kept.read()
            self._known = self._cursor is not None
            self._go_on_from(self._cursor)
        if not self._known:
            self._cursor = last if self._config.start == "end" else None
            self._go_on_from(self._cursor)
        elif self._cursor is not None and (last is None or _before(last, self._cursor)):
            self._cursor = None
            self._go_on_from(None)
        self._known = True

    def _go_on_from(self, cursor: Any) -> None:
        if self._overlap is not None:
            self._overlap.begin(cursor)

    async def read(self) -> Block:
        """Wait for rows that are new; what is left over one query's limit comes at once.

        Raises:
            NotConnected: the database has gone, is locked for longer than the timeout, or hangs.
        """
        while True:
            if self._worker is None:
                raise NotConnected("not connected")
            await self._clock.sleep_until(self._due * self._period)
            rows = await self._answered(self._new_rows)
            self.alive_until = self._clock.now()
            if len(rows) < self._config.rows:
                self._due = max(self._due + 1, -(-self._clock.now() // self._period))
            if rows:
                return Block(self._staged(rows))

    def _new_rows(self) -> Sequence[Sequence[Any]]:
        """On the worker's thread."""
        if self._table is None:
            raise NotConnected("not connected")
        if self._clock.now() - self._kept_at >= _KEEP_EVERY:
            self._keep()
        if self._overlap is None:
            return self._table.since(self._cursor, self._config.rows)
        begins = self._overlap.begins(self._clock.now())
        rows = self._table.since(begins, self._config.rows + len(self._overlap))
        return [rows[place] for place in self._overlap.unread(self._cursors(rows))][: self._config.rows]

    def _cursors(self, rows: Sequence[Sequence[Any]]) -> list[Any]:
        place = self._places[self._config.cursor]
        return [row[place] for row in rows]

    def _keep(self) -> None:
        """Write down where the rows that have been read end; blocking."""
        self._kept_at = self._clock.now()
        if self._kept is None or not self._known:
            return
        try:
            self._kept.write(self._cursor)
        except OSError as error:
            raise NotConnected(f"the place in the table cannot be kept: {error.strerror}") from error

    def _staged(self, rows: Sequence[Sequence[Any]]) -> Any:
        """The rows as samples; only now are they read."""
        self._stage.take()  # what a cancelled read has left
        now, places = self._clock.now(), [self._places[column] for column in self._columns]
        for row, stamp in zip(rows, self._stamps(rows), strict=True):
            self._stage.begin(now, stamp=stamp)
            for column, place in enumerate(places):
                value = row[place]
                if isinstance(value, Real | Decimal) and math.isfinite(value):
                    self._stage.put(column, float(value))
                else:
                    self._stage.put(column, math.nan, Quality.BAD, Reason.TYPE)
        cursors = self._cursors(rows)
        known = [each for each in cursors if each is not None]
        if known and (self._cursor is None or _before(self._cursor, known[-1])):
            self._cursor = known[-1]
        if self._overlap is not None:
            self._overlap.read(cursors, self._cursor, now)
        return self._stage.take()

    def _stamps(self, rows: Sequence[Sequence[Any]]) -> Sequence[int]:
        """The rows' own times, UTC nanoseconds; 0 where there is none."""
        name = self._config.time
        if name is None:
            return [0] * len(rows)
        cells = [str(row[self._places[name]]) for row in rows]
        if self._stamp is None:
            self._stamp = Stamp(name, cells[0])
        found = self._stamp.read(cells)
        return [int(each) for each in np.where(found == NO_TIME, 0, found)]

    async def close(self) -> None:
        """Close the database; safe twice, and without `connect`."""
        worker, self._worker = self._worker, None
        table, self._table = self._table, None
        if worker is None:
            return
        if table is not None:
            table.interrupt()
            await worker.run(table.close)  # behind a query that may still run, but not on the loop
        try:
            await worker.run(self._keep)
        except NotConnected:  # it is told when it is tried the next time
            pass
        finally:
            worker.close()


def _before(one: Any, other: Any) -> bool:
    """Whether a value comes before another; one of another type is no place to go on from."""
    try:
        return bool(one < other)
    except TypeError:
        return True
