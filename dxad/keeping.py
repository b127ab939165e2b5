"""The service that keeps what pipelines have learned and what is open in them over a restart.

state_dir/pipelines/NAME.state ◀─ at once when an incident opens or closes or a warm-up ends
                               ◀─ else once a minute, and at a clean stop; never when nothing is different
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from dxad import statefile
from dxad.errors import ModelError
from dxad.event import Event
from dxad.pipeline import Pipeline
from dxad.runtime.clock import Clock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.runtime.worker import Worker
from dxad.types import NS_PER_S, Document

__all__ = ["Keeping"]

log = logging.getLogger(__name__)

_LOOK_NS: Final = NS_PER_S
_EVERY_NS: Final = 60 * NS_PER_S
"""Flash wears: what changes all the time is written so often at most."""
_URGENT: Final = ("dxad.incident.opened", "dxad.incident.reopened", "dxad.incident.closed")


class Keeping:
    """Writes and reads the state of pipelines, a file for each."""

    def __init__(
        self,
        pipelines: Callable[[], Mapping[str, Pipeline]],
        folder: Path,
        *,
        tell: Callable[[Event], None],
        worker: Worker,
        clock: Clock,
        health: Health,
        metrics: Metrics,
    ) -> None:
        """Keep the state of those that `pipelines` gives, whenever it is asked, in `folder`.

        What comes of taking a state up is told to `tell`. A pipeline's state is taken on `worker`, the one
        that steps pipelines: so it is never half a batch.
        """
        self._tell = tell
        self._pipelines = pipelines
        self._folder = folder
        self._worker = worker
        self._clock = clock
        self._health = health
        self._metrics = metrics
        self._written: dict[str, bytes] = {}
        """By pipeline, the hash of what its file holds."""
        self._looked_at: dict[str, int] = {}
        """By pipeline, the stream time when its state was last taken."""
        self._warm: dict[str, bool] = {}
        """By pipeline, whether its model was when its state was last taken."""
        self._urgent: set[str] = set()
        self._saving = asyncio.Lock()

    def note(self, event: Event) -> None:
        """An incident that opened or closed is state that must not wait."""
        if event.type in _URGENT:
            self._urgent.add(event.data["pipeline"])

    def want(self, name: str) -> None:
        """What somebody has decided about an alarm of a pipeline must not wait either."""
        self._urgent.add(name)

    async def run(self) -> None:
        """Save what is due, until cancelled."""
        while True:
            await self._clock.sleep_until(self._clock.now() + _LOOK_NS)
            await self._save([each for each in self._pipelines().values() if self._due(each)])

    async def save(self) -> None:
        """Save everything that is different, now."""
        await self._save(self._pipelines().values())

    def read(self, name: str) -> Document:
        """The state that a pipeline of this name has left, empty if none; blocking, from any thread.

        A file that is damaged or not ours is set aside and counted: the pipeline begins anew.
        """
        path = self._path(name)
        self._written.pop(name, None)
        try:
            return statefile.read(path) or {}
        except statefile.StateError as error:
            self._reject(name, "damaged")
            try:
                aside = f"set aside as {statefile.set_aside(path)}"
            except OSError as trouble:
                aside = f"cannot be set aside: {trouble.strerror}"
            log.warning("%s: %s; %s, and %s begins anew", path, error, aside, name)
            return {}

    async def restore(self) -> None:
        """Let all pipelines take up what they have left, before the first of them is stepped."""
        for name, pipeline in self._pipelines().items():
            refused: list[ModelError] = []
            state = await asyncio.to_thread(self.read, name)
            for event in pipeline.restore(state, refuse=refused.append):
                self._tell(event)
            for error in refused:
                self._reject(name, "foreign")
                log.warning("%s: %s; %s begins anew", self._path(name), error, name)
            if state and not refused:
                log.info("%s: goes on with what it knew before the restart", name)

    def _reject(self, name: str, reason: str) -> None:
        self._metrics.counter("dxad_states_rejected_total", pipeline=name, reason=reason).add()

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.state"

    def _due(self, pipeline: Pipeline) -> bool:
        name = pipeline.name
        looked_at = self._looked_at.get(name)
        return (
            looked_at is None
            or name in self._urgent
            or self._clock.now() - looked_at >= _EVERY_NS
            or self._warm.get(name) != _is_warm(pipeline)
        )

    async def _save(self, pipelines: Iterable[Pipeline]) -> None:
        async with self._saving:
            for pipeline in pipelines:
                await self._save_one(pipeline)

    async def _save_one(self, pipeline: Pipeline) -> None:
        name = pipeline.name
        self._urgent.discard(name)
        self._looked_at[name] = self._clock.now()
        self._warm[name] = _is_warm(pipeline)
        state = await self._worker.run(pipeline.state)
        if not state:
            return
        try:
            self._written[name] = await asyncio.to_thread(self._write, name, state)
        except OSError as error:
            self._urgent.add(name)  # the disk may take it the next time
            text = f"{self._path(name)}: {error.strerror or error}"
            self._health.raise_condition("state.unsaved", name, text)
            return
        except statefile.StateError as error:
            self._health.raise_condition("state.unsaved", name, f"its state {error}")
            return
        self._health.clear("state.unsaved", name)

    def _write(self, name: str, state: Document) -> bytes:
        raw = statefile.encode(state)
        written = hashlib.sha256(raw).digest()
        if written != self._written.get(name):
            statefile.write(self._path(name), raw)
        return written


def _is_warm(pipeline: Pipeline) -> bool:
    """Whether its model knows what is normal: what took a warm-up must not be lost."""
    return pipeline.detector is not None and pipeline.detector.calibration is not None
