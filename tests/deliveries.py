"""One delivery with all around it, for tests: a peer that does as it is told, and a real outbox in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from dxad.deliver import Deliver
from dxad.errors import Rejected
from dxad.outbox import Outbox
from dxad.runtime.clock import SteppedClock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.sinksection import SinkSection
from dxad.types import NS_PER_S, Lane, Record
from tests.patience import PATIENCE_S

__all__ = ["Peer", "World"]

Answer = Exception | None


class Peer:
    """A sink that answers each write as the test says, then takes everything."""

    def __init__(self) -> None:
        self.answers: Iterator[Answer] = iter(())
        self.refuses: Callable[[Record], bool] = lambda _: False
        self.connect_errors: list[Exception] = []
        self.written: list[list[str]] = []
        self.taken: list[str] = []
        self.connects = 0
        self.closes = 0
        self.hang = False

    async def connect(self) -> None:
        self.connects += 1
        if self.connect_errors:
            raise self.connect_errors.pop(0)

    async def write(self, records: Sequence[Record]) -> None:
        self.written.append([each.id for each in records])
        if self.hang:
            await asyncio.Event().wait()
        if (answer := next(self.answers, None)) is not None:
            raise answer
        rejected = [place for place, each in enumerate(records) if self.refuses(each)]
        self.taken += [each.id for place, each in enumerate(records) if place not in rejected]
        if rejected:
            raise Rejected(rejected, "not to my taste")

    async def close(self) -> None:
        self.closes += 1


class WatchedClock(SteppedClock):
    def __init__(self) -> None:
        super().__init__()
        self.waits_s: list[float] = []

    async def sleep_until(self, at: int) -> None:
        self.waits_s.append((at - self.now()) / NS_PER_S)
        await super().sleep_until(at)


class World:
    """One delivery with all around it."""

    def __init__(self, path: Path | None = None) -> None:
        self.clock = WatchedClock()
        self.health = Health(self.clock)
        self.metrics = Metrics()
        self.peer = Peer()
        self.box = Outbox(
            path,
            max_bytes=2**24,
            commit_window_s=0.0,
            health=self.health,
            metrics=self.metrics,
            clock=self.clock,
        )

    @asynccontextmanager
    async def delivering(self, **section: object) -> AsyncIterator[Deliver]:
        deliver = Deliver(
            "s",
            self.peer,
            self.box,
            SinkSection(**section),
            clock=self.clock,
            health=self.health,
            metrics=self.metrics,
        )
        async with self.box:
            task = asyncio.create_task(deliver.run())
            try:
                yield deliver
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def append(self, *ids: str, lane: Lane = Lane.CRITICAL) -> None:
        await asyncio.gather(*(self.box.append(Record(each, lane, b"")) for each in ids))

    async def until(self, true: Callable[[], object], *, step_s: float = 0.0) -> None:
        """Let things happen, and time pass, until it is so."""
        async with asyncio.timeout(PATIENCE_S):
            while not true():
                await self.clock.step(int(step_s * NS_PER_S))
                await asyncio.sleep(0.001)
