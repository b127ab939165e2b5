"""Readings that are pushed in by the program that runs dxad in process."""

import asyncio
import math
from collections import deque
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Final, Literal

from pydantic import Field

from dxad.errors import NotConnected
from dxad.fields import ChannelSection, Identifier, SourceSection
from dxad.plugin import Plugin
from dxad.runtime.clock import Clock
from dxad.stage import Stage
from dxad.types import Block, Channel, Quality, Reason

__all__ = ["PLUGIN", "Config", "Memory", "MemoryChannel"]

_WAITING_MAX: Final = 50_000
_PER_READ: Final = 1_000
"""Messages."""


class MemoryChannel(ChannelSection):
    """One field of the mappings that are pushed."""

    path: str | None = Field(None, description="the mapping's key; default: the channel's name")


class Config(SourceSection):
    """`type = "memory"`, `channels = { value = {} }`."""

    in_process = True

    type: Literal["memory"]
    channels: dict[Identifier, MemoryChannel] = Field(description="by name")

    def channel_sections(self) -> Mapping[str, ChannelSection]:
        """All channels, by name."""
        return self.channels


class Memory:
    """Takes one message per `push`; when too many wait to be read, the oldest are dropped and counted."""

    def __init__(self, name: str, config: Config, *, clock: Clock) -> None:
        self.channels: Sequence[Channel] = config.declared(name)
        self.overflowed = 0
        """Samples dropped because nobody read them."""
        self._clock = clock
        self._paths = [channel.path or key for key, channel in config.channels.items()]
        self._waiting: deque[tuple[int, list[object]]] = deque()
        self._stage = Stage(_PER_READ * len(self._paths))
        self._news = asyncio.Event()
        self._open = False

    def push(self, values: Mapping[str, float]) -> None:
        """Hand in one message; a missing field, or one that is no finite number, is a bad sample."""
        if len(self._waiting) == _WAITING_MAX:
            self._waiting.popleft()
            self.overflowed += len(self._paths)
        self._waiting.append((self._clock.now(), [values.get(path) for path in self._paths]))
        self._news.set()

    async def connect(self) -> None:
        """There is nothing to connect to."""
        self._open = True

    async def read(self) -> Block:
        """All messages that were pushed since the last call, a thousand at most.

        Raises:
            NotConnected: it is closed.
        """
        while not self._waiting:
            if not self._open:
                raise NotConnected("not connected")
            self._news.clear()
            await self._news.wait()
        for _ in range(min(len(self._waiting), _PER_READ)):
            self._put(*self._waiting.popleft())
        return Block(self._stage.take())

    def _put(self, arrival: int, values: Sequence[object]) -> None:
        self._stage.begin(arrival)
        for column, value in enumerate(values):
            number = _number(value)
            if number is None:
                self._stage.put(column, float("nan"), Quality.BAD, Reason.TYPE)
            else:
                self._stage.put(column, number)

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
