"""All pipelines that are due, handed to the inference thread together, once per tick."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from dxad.event import Event
from dxad.pipeline import Pipeline
from dxad.runtime.health import Health
from dxad.runtime.worker import Worker

__all__ = ["Scoring"]

log = logging.getLogger(__name__)

_FAILURES_MOST: Final = 5


class Scoring:
    """The service that steps pipelines; one that breaks does not stop the others."""

    def __init__(
        self,
        pipelines: Iterable[Pipeline],
        worker: Worker,
        *,
        health: Health,
        on_event: Callable[[Event], None],
    ) -> None:
        """Step `pipelines` on `worker`; `on_event` is called on the event loop for each event, in order."""
        self._pipelines = list(pipelines)
        self._worker = worker
        self._health = health
        self._on_event = on_event
        self._wake = asyncio.Event()
        self._failures: Counter[str] = Counter()

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
            batch = asyncio.create_task(self._batch(), name="inference")
            try:
                await asyncio.shield(batch)
            finally:
                if not batch.done():
                    await asyncio.wait([batch])  # cancelled: what is being found now is told all the same

    async def _batch(self) -> None:
        stepped = list(self._pipelines)
        answers = await asyncio.gather(
            *(self._worker.run(each.step) for each in stepped), return_exceptions=True
        )
        for pipeline, answer in zip(stepped, answers, strict=True):
            if isinstance(answer, BaseException):
                self._failed(pipeline, answer)
                continue
            for event in answer:
                self._on_event(event)

    def _failed(self, pipeline: Pipeline, error: BaseException) -> None:
        """A bug; the rows of that batch are gone, and after a few of them the pipeline is given up."""
        self._failures[pipeline.name] += 1
        count = self._failures[pipeline.name]
        text = f"{type(error).__name__}: {error}"
        log.error("pipeline %s failed: %s", pipeline.name, text, exc_info=error if count == 1 else None)
        if count >= _FAILURES_MOST:
            self._pipelines.remove(pipeline)
            self._health.raise_condition("service.failed", f"pipeline {pipeline.name}", text)
