"""Readings that are pushed in by the program that runs dxad in process."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from pydantic import Field

from dxad.errors import NotConnected
from dxad.fields import ChannelSection, Identifier, SourceSection
from dxad.plugin import Plugin
from dxad.runtime.clock import Clock
from dxad.stage import Stage
from dxad.types import Block, Channel, Quality, Reason

__all__ = ["PLUGIN", "Config", "Memory", "MemoryChannel"]

_STAGED_MAX: Final = 50_000


class MemoryChannel(ChannelSection):
    """One field of the mappings that are pushed."""

    path: str | None = Field(None, description="the mapping's key; default: the channel's name")


class Config(SourceSection):
    """`type = "memory"`, `channels = { value = {} }`."""

    type: Literal["memory"]
    channels: dict[Identifier, MemoryChannel] = Field(description="by name")

    def channel_sections(self) -> Mapping[str, ChannelSection]:
        """All channels, by name."""
        return self.channels


class Memory:
    """Takes one message per `push`; beyond what is staged at most, the newest are dropped and counted."""

    def __init__(self, name: str, config: Config, *, clock: Clock) -> None:
        self.channels: Sequence[Channel] = config.declared(name)
        self._clock = clock
        self._paths = [channel.path or key for key, channel in config.channels.items()]
        self._stage = Stage(_STAGED_MAX)
        self._pushed = asyncio.Event()
        self._open = False

    @property
    def overflowed(self) -> int:
        """Samples dropped because nobody read them."""
        return self._stage.overflowed

    def push(self, values: Mapping[str, float]) -> None:
        """Hand in one message; a missing field, or one that is no finite number, is a bad sample."""
        self._stage.begin(self._clock.now())
        for column, path in enumerate(self._paths):
            value: object = values.get(path)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                self._stage.put(column, float("nan"), Quality.BAD, Reason.TYPE)
            else:
                self._stage.put(column, float(value))
        self._pushed.set()

    async def connect(self) -> None:
        """There is nothing to connect to."""
        self._open = True

    async def read(self) -> Block:
        """All samples that were pushed since the last call.

        Raises:
            NotConnected: it is closed.
        """
        while not len(self._stage):
            if not self._open:
                raise NotConnected("read before connect")
            self._pushed.clear()
            await self._pushed.wait()
        return Block(self._stage.take())

    async def close(self) -> None:
        """What was pushed stays until the next read."""
        self._open = False


PLUGIN = Plugin(Config, Memory)
