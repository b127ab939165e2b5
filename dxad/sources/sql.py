"""Readings from a table that somebody else fills: a query of a SQLite file, asked for its new rows.

A column that only grows, the cursor, tells which rows are new. The file is opened for reading alone.
"""

import math
import sqlite3
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import quote, urlsplit

import numpy as np
from pydantic import Field, field_validator, model_validator

from dxad.errors import ConfigError, NotConnected
from dxad.fields import ChannelSection, Duration, Identifier, SourceSection
from dxad.links import words
from dxad.plugin import Plugin
from dxad.recording.times import NO_TIME, Stamp
from dxad.ring.stage import Stage
from dxad.runtime.clock import Clock
from dxad.runtime.worker import Worker
from dxad.types import NS_PER_S, Block, Channel, Quality, Reason

__all__ = ["PLUGIN", "Config", "Sql", "SqlChannel"]

_COLUMN: Final = r"^[^\"\x00]+$"

_Row = Sequence[Any]


class SqlChannel(ChannelSection):
    """One column of the query's rows."""

    column: str | None = Field(None, description="of the query; default: the channel's name")


class Config(SourceSection):
    """`type = "sql"`, `url = "sqlite:///var/lib/lims.db"`, `query = "SELECT id, ph FROM samples"`."""

    stamped = True

    type: Literal["sql"]
    url: str = Field(description="sqlite:///path of the file")
    query: str = Field(min_length=1, description="one SELECT, without a limit and an order of its own")
    cursor: str = Field(pattern=_COLUMN, description="the query's column that only grows")
    time: str | None = Field(
        None, pattern=_COLUMN, description='the column with the time of each row, for clock = "device"'
    )
    start: Literal["end", "begin"] = Field(
        "end", description="whether the first query skips the rows that are there already"
    )
    rows: int = Field(1_000, gt=0, le=100_000, description="that one query fetches at most")
    timeout: Duration = Field(5 * NS_PER_S, gt=0, description="how long a query waits for a writer's lock")
    channels: dict[Identifier, SqlChannel] = Field(min_length=1, description="by name")

    @field_validator("query")
    @classmethod
    def _alone(cls, query: str) -> str:
        return query.rstrip("; \t\r\n")

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        split = urlsplit(url)
        if split.scheme != "sqlite" or split.netloc or len(split.path) < len("/x"):
            raise ValueError(f"{url!r} is not sqlite:///path")
        return url

    @model_validator(mode="after")
    def _has_the_time(self) -> Self:
        if self.clock == "device" and self.time is None:
            raise ValueError('clock: "device" wants to know by `time` which column has it')
        return self

    @property
    def path(self) -> Path:
        """The file."""
        return Path(urlsplit(self.url).path)

    def channel_sections(self) -> Mapping[str, ChannelSection]:
        """All channels, by name."""
        return self.channels


class Sql:
    """Asks once per period for what is new; each row is a message."""

    def __init__(self, name: str, config: Config, *, clock: Clock) -> None:
        self.channels: Sequence[Channel] = config.declared(name)
        self._name = name
        self._config = config
        self._clock = clock
        self._period = config.period or NS_PER_S
        self._columns = [channel.column or key for key, channel in config.channels.items()]
        self._stage = Stage(config.rows * len(self._columns))
        self._worker: Worker | None = None
        self._database: sqlite3.Connection | None = None
        self._places: Mapping[str, int] = {}
        self._stamp: Stamp | None = None
        self._cursor: Any = None
        """The last value of the cursor's column that has been read; stays over a new connection."""
        self._known = False
        """Whether it has been found out where the first query begins."""
        self.alive_until = 0
        """When a query was answered last: a table that does not grow is no fault of the link."""
        self._inode = 0
        self._due = 0
        """The slot of the next query."""

    async def connect(self) -> None:
        """Open the file, try the query, and find out where the rows begin.

        Raises:
            NotConnected: the file is not there, or cannot be read now.
            ConfigError: the query is wrong, or has not the columns that are wanted.
        """
        await self.close()
        self._worker = Worker(f"sql-{self._name}")
        try:
            self._places = await self._worker.run(self._open)
        except (OSError, sqlite3.Error) as error:
            await self.close()
            raise self._explained(error) from error
        missing = [each for each in self._wanted if each not in self._places]
        if missing:
            there = ", ".join(self._places)
            raise ConfigError(f"{self._config.path}: the query has no column {missing[0]!r}; it has {there}")
        self._due = -(-self._clock.now() // self._period)

    @property
    def _wanted(self) -> list[str]:
        further = [] if self._config.time is None else [self._config.time]
        return [*self._columns, self._config.cursor, *further]

    def _open(self) -> Mapping[str, int]:
        """On the worker's thread; returns the place of each of the query's columns."""
        self._database = database = sqlite3.connect(
            f"file:{quote(str(self._config.path))}?mode=ro",
            uri=True,
            timeout=self._config.timeout / NS_PER_S,
            isolation_level=None,
            check_same_thread=False,
        )
        self._inode = self._config.path.stat().st_ino
        database.execute("PRAGMA query_only = 1")
        found = database.execute(f"SELECT * FROM ({self._config.query}) LIMIT 0").description  # noqa: S608
        places = {column[0]: at for at, column in enumerate(found)}
        if self._config.cursor in places:
            self._begin(database)
        return places

    def _begin(self, database: sqlite3.Connection) -> None:
        """Find where to go on: a table whose cursor has gone back is another one, of which all is new."""
        most = f'SELECT MAX("{self._config.cursor}") FROM ({self._config.query})'  # noqa: S608
        (last,) = database.execute(most).fetchone()
        if not self._known:
            self._cursor = last if self._config.start == "end" else None
        elif self._cursor is not None and (last is None or last < self._cursor):
            self._cursor = None
        self._known = True

    def _explained(self, error: Exception) -> NotConnected | ConfigError:
        """Whether trying again can help."""
        if isinstance(error, OSError):
            return NotConnected(f"{self._config.path}: {words(error)}")
        said = f"{self._config.path}: {error}"
        later = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR}
        later |= {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_SCHEMA}
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_IOERR) & 0xFF
        if code in later or str(error).startswith("no such table"):  # which its program may make later
            return NotConnected(said)
        return ConfigError(f"{said}; the query is: {self._config.query}")

    async def read(self) -> Block:
        """Wait for rows that are new; what is left over one query's limit comes at once.

        Raises:
            NotConnected: the file has gone, or is locked for longer than the timeout.
        """
        while True:
            if self._worker is None:
                raise NotConnected("not connected")
            await self._clock.sleep_until(self._due * self._period)
            try:
                rows = await self._worker.run(self._new_rows)
            except sqlite3.Error as error:
                raise NotConnected(f"{self._config.path}: {error}") from error
            self.alive_until = self._clock.now()
            if len(rows) < self._config.rows:
                self._due = max(self._due + 1, -(-self._clock.now() // self._period))
            if rows:
                return Block(self._staged(rows))

    def _new_rows(self) -> list[_Row]:
        """On the worker's thread: the next rows, all fetched, so that no reader holds the log of a writer."""
        assert self._database is not None
        config = self._config
        try:
            there = config.path.stat().st_ino == self._inode
        except OSError:
            there = False
        if not there:  # the open one lives on without its name
            raise sqlite3.OperationalError("the file has gone, or is another one now")
        since = "" if self._cursor is None else f'WHERE "{config.cursor}" > ?'
        text = f'SELECT * FROM ({config.query}) {since} ORDER BY "{config.cursor}" LIMIT ?'  # noqa: S608
        given = [config.rows] if self._cursor is None else [self._cursor, config.rows]
        return self._database.execute(text, given).fetchall()

    def _staged(self, rows: Sequence[_Row]) -> Any:
        """The rows as samples; only now are they read."""
        self._stage.take()  # what a cancelled read has left
        now, places = self._clock.now(), [self._places[column] for column in self._columns]
        for row, stamp in zip(rows, self._stamps(rows), strict=True):
            self._stage.begin(now, stamp=stamp)
            for column, place in enumerate(places):
                value = row[place]
                if isinstance(value, Real) and math.isfinite(value):
                    self._stage.put(column, float(value))
                else:
                    self._stage.put(column, math.nan, Quality.BAD, Reason.TYPE)
        self._cursor = rows[-1][self._places[self._config.cursor]]
        return self._stage.take()

    def _stamps(self, rows: Sequence[_Row]) -> Sequence[int]:
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
        """Close the file; safe twice, and without `connect`."""
        worker, self._worker = self._worker, None
        database, self._database = self._database, None
        if worker is None:
            return
        if database is not None:
            database.interrupt()
            await worker.run(database.close)  # behind a query that may still run, but not on the loop
        worker.close()


PLUGIN = Plugin(Config, Sql)
