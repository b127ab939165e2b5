"""Readings that are pushed in by the program that runs dxad in process."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Final, Literal

from pydantic import Field

from dxad.errors import NotConnected
from dxad.fields import ChannelSection, Identifier, SourceSection
from dxad.plugin import Plugin
from dxad.ring.stage import Stage
from dxad.runtime.clock import Clock
from dxad.types import Block, Channel, Overflow, Quality, Reason

__all__ = ["PLUGIN", "Config", "Memory", "MemoryChannel"]

_PER_READ: Final = 1_000
"""Messages."""


class MemoryChannel(ChannelSection):
    """One field of the mappings that are pushed."""

    path: str | None = Field(None, description="the mapping's key; default: the channel's name")


class Config(SourceSection):
    """`type = "memory"`, `channels = { value = {} }`."""

    in_process = True
    holds_back = True
    stamped = True

    type: Literal["memory"]
    overflow: Overflow = Field(
        "drop_oldest", description="as of every source; with block, push raises where it would have to wait"
    )
    channels: dict[Identifier, MemoryChannel] = Field(description="by name")

    def channel_sections(self) -> Mapping[str, ChannelSection]:
        """All channels, by name."""
        return self.channels


class Memory:
    """Takes one message per `push`; when too many wait to be read, it loses what `overflow` says, counted."""

    def __init__(self, name: str, config: Config, *, clock: Clock) -> None:
        self.channels: Sequence[Channel] = config.declared(name)
        self._clock = clock
        self._paths = [channel.path or key for key, channel in config.channels.items()]
        messages = max(1, config.queue // len(self._paths))
        self._stage = Stage(messages * len(self._paths), config.overflow)
        self._waits = config.overflow == "block"
        self._news = asyncio.Event()
        self._read = asyncio.Event()
        self._open = False

    @property
    def overflowed(self) -> int:
        """Samples dropped because nobody read them."""
        return self._stage.overflowed

    def push(self, values: Mapping[str, float], *, stamp: int = 0) -> None:
        """Hand in one message; a missing field, or one that is no finite number, is a bad sample.

        Args:
            values: by the channels' paths.
            stamp: when they were taken by the device's own clock, UTC nanoseconds; 0 if it has none.

        Raises:
            asyncio.QueueFull: too many wait, and `overflow` is "block": await `room` first.
        """
        if self._waits and self._stage.room < len(self._paths):
            raise asyncio.QueueFull
        self._stage.begin(self._clock.now(), stamp=stamp)
        for column, path in enumerate(self._paths):
            number = _number(values.get(path))
            if number is None:
                self._stage.put(column, math.nan, Quality.BAD, Reason.TYPE)
            else:
                self._stage.put(column, number)
        self._news.set()

    async def room(self) -> None:
        """Wait until `push` has room for a message; with any `overflow` but "block" it always has."""
        while self._waits and self._stage.room < len(self._paths):
            self._read.clear()
            await self._read.wait()

    async def connect(self) -> None:
        """There is nothing to connect to."""
        self._open = True

    async def read(self) -> Block:
        """All messages that were pushed since the last call, a thousand at most.

        Raises:
            NotConnected: it is closed.
        """
        while not len(self._stage):
            if not self._open:
                raise NotConnected("not connected")
            self._news.clear()
            await self._news.wait()
        self._read.set()
        return Block(self._stage.take(_PER_READ * len(self._paths)))

    async def close(self) -> None:
        """What was pushed stays until the next read."""
        self._open = False
        self._news.set()


def _number(value: object) -> float | None:
    """A finite number, numpy's among them; booleans and strings are none, whatever they look like."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


PLUGIN = Plugin(Config, Memory)
