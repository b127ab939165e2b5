"""Queues on the nodes of a running pipeline, filled only while somebody holds them."""

import asyncio
from types import TracebackType
from typing import Final, Self

from dxad.assembly import Assembly
from dxad.event import Event
from dxad.ring.ringbuffer import RingBuffer
from dxad.runtime.clock import Clock
from dxad.types import NS_PER_S, Document

__all__ = ["Taps"]

_LOOK_NS: Final = NS_PER_S // 50


class Taps:
    """A queue per source with its rows, one per pipeline with its scores, and one with all events.

    A full queue drops its oldest; `dropped` counts them.
    """

    def __init__(self, assembly: Assembly, clock: Clock, *, size: int) -> None:
        self.dropped = 0
        self._assembly = assembly
        self._clock = clock
        rings = {name: ingest.ring for name, ingest in assembly.ingests.items()}
        rings |= {name: pipeline.scores for name, pipeline in assembly.pipelines.items()}
        self._cursors = {name: (ring, ring.sealed) for name, ring in rings.items()}
        self.buffers: dict[str, asyncio.Queue[Document]] = {
            name: asyncio.Queue(size) for name in (*rings, "events")
        }

    async def __aenter__(self) -> Self:
        self._deliver = self._assembly.on_event
        self._assembly.on_event = self._event
        self._task = asyncio.create_task(self._fill(), name="taps")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._assembly.on_event = self._deliver
        self._task.cancel()
        await asyncio.wait([self._task])

    def _event(self, event: Event) -> None:
        self._put("events", event.document())
        self._deliver(event)

    async def _fill(self) -> None:
        while True:
            for name, (ring, cursor) in self._cursors.items():
                self._cursors[name] = (ring, self._read(name, ring, cursor))
            await self._clock.sleep_until(self._clock.now() + _LOOK_NS)

    def _read(self, name: str, ring: RingBuffer, cursor: int) -> int:
        reading = ring.read(cursor, ring.sealed)
        names = [channel.id for channel in ring.channels]
        for row, values in enumerate(reading.values.tolist(), reading.first):
            self._put(name, {"row": row, "values": dict(zip(names, values, strict=True))})
        self.dropped += reading.lost
        return reading.first + len(reading.values)

    def _put(self, name: str, document: Document) -> None:
        queue = self.buffers[name]
        if queue.full():
            queue.get_nowait()
            self.dropped += 1
        queue.put_nowait(document)
