"""All pipelines that are due, handed to the inference thread together, once per tick."""

import asyncio
from collections.abc import Callable, Iterable

from dxad.event import Event
from dxad.pipeline import Pipeline
from dxad.runtime.worker import Worker

__all__ = ["Scoring"]


class Scoring:
    """The service that steps pipelines."""

    def __init__(
        self,
        pipelines: Iterable[Pipeline],
        worker: Worker,
        *,
        on_event: Callable[[Event], None],
    ) -> None:
        """Step `pipelines` on `worker`; `on_event` is called on the event loop for each event, in order."""
        self._pipelines = tuple(pipelines)
        self._worker = worker
        self._on_event = on_event
        self._wake = asyncio.Event()
        self._found: list[Event] = []

    def tick(self, _now: int) -> None:
        """Look whether anything is due."""
        if any(pipeline.due for pipeline in self._pipelines):
            self._wake.set()

    def wake(self) -> None:
        """Rows came between two ticks."""
        self._wake.set()

    async def run(self) -> None:
        """Step what is due, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch = asyncio.create_task(self._worker.run(self._step), name="inference")
            try:
                await asyncio.shield(batch)
            finally:
                if not batch.done():
                    await asyncio.wait([batch])  # cancelled: what is being found now is told all the same
                found, self._found = self._found, []
                for event in found:
                    self._on_event(event)

    def _step(self) -> None:
        for pipeline in self._pipelines:
            self._found += pipeline.step()
