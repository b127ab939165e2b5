"""All pipelines that are due, handed to the inference thread together, once per tick."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final

from dxad.event import Event
from dxad.pipeline import Pipeline
from dxad.runtime.health import Health
from dxad.runtime.worker import Worker

__all__ = ["Scoring"]

log = logging.getLogger(__name__)

_FAILURES_MOST: Final = 5
_FORGIVEN: Final = 0.01
"""Of a failure, by each step that goes well: a pipeline that breaks once a day goes on for years."""


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
        self._all = list(pipelines)
        self._pipelines = list(self._all)
        self._worker = worker
        self._health = health
        self._on_event = on_event
        self._wake = asyncio.Event()
        self._failures: defaultdict[str, float] = defaultdict(float)
        """By pipeline: how often it broke of late; each step that goes well forgives a little."""
        self._stepping = asyncio.Lock()

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

    @asynccontextmanager
    async def between_batches(self) -> AsyncIterator[None]:
        """Inside, no pipeline is being stepped: the batch under way has ended, and the next one waits."""
        async with self._stepping:
            yield

    async def finish(self, pipelines: Iterable[Pipeline]) -> None:
        """Step these once more, between two batches: they shall leave no row behind."""
        last = list(pipelines)
        await self._step([each for each in self._pipelines if each in last])

    def replace(self, pipelines: Iterable[Pipeline]) -> None:
        """Step these from now on, between two batches; one that was given up stays so until it is new."""
        before = {each.name: each for each in self._all}
        self._all = list(pipelines)
        for name, old in before.items():
            if old not in self._all:
                self._failures.pop(name, None)
                self._health.clear("service.failed", f"pipeline {name}", "it is there no more")
        self._pipelines = [each for each in self._all if self._failures[each.name] < _FAILURES_MOST]
        self._wake.set()

    async def _batch(self) -> None:
        async with self._stepping:
            await self._step([each for each in self._pipelines if each.due])

    async def _step(self, stepped: list[Pipeline]) -> None:
        answers = await self._worker.run_all([each.step for each in stepped])
        for pipeline, answer in zip(stepped, answers, strict=True):
            if isinstance(answer, BaseException):
                self._failed(pipeline, answer)
                answer = pipeline.untold()  # noqa: PLW2901 - what it found before it broke
            elif self._failures[pipeline.name]:
                self._failures[pipeline.name] = max(0.0, self._failures[pipeline.name] - _FORGIVEN)
            for event in answer:
                self._on_event(event)

    def _failed(self, pipeline: Pipeline, error: BaseException) -> None:
        """A bug; the rows of that batch are gone, and after a few of them the pipeline is given up."""
        self._failures[pipeline.name] += 1
        count = self._failures[pipeline.name]
        text = f"{type(error).__name__}: {error}"
        log.error("pipeline %s failed: %s", pipeline.name, text, exc_info=error if count <= 1 else None)
        if count >= _FAILURES_MOST:
            self._pipelines.remove(pipeline)
            self._health.raise_condition("service.failed", f"pipeline {pipeline.name}", text)
