"""Records for whoever runs dxad in process: a bounded queue that an `async for` empties."""

import asyncio
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from dxad.event import decode
from dxad.plugin import Plugin
from dxad.sinksection import SinkSection
from dxad.types import Document, Record

__all__ = ["PLUGIN", "Config", "Memory"]


class Config(SinkSection):
    """`{ type = "memory" }`."""

    in_process = True

    type: Literal["memory"]
    capacity: int = Field(1000, gt=0, description="events kept for the reader; the oldest goes first")


class Memory:
    """Keeps the newest events until they are read; what a slow reader lost is in `dropped`."""

    def __init__(self, name: str, config: Config, *, state_dir: Path | None = None) -> None:  # noqa: ARG002
        self.name = name
        self.dropped = 0
        self._capacity = config.capacity
        self._events: deque[Document] = deque()
        self._arrived = asyncio.Event()

    async def connect(self) -> None:
        """There is nothing to connect to."""

    async def write(self, records: Sequence[Record]) -> None:
        """Queue the events; returns at once."""
        for record in records:
            if len(self._events) == self._capacity:
                self._events.popleft()
                self.dropped += 1
            self._events.append(decode(record))
        self._arrived.set()

    async def next_event(self) -> Document:
        """The oldest event that was not read; waits for one."""
        while not self._events:
            self._arrived.clear()
            await self._arrived.wait()
        return self._events.popleft()

    async def close(self) -> None:
        """What is queued stays readable."""


PLUGIN = Plugin(Config, Memory)
