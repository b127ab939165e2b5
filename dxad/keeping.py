"""The service that keeps what pipelines have learned and what is open in them over a restart.

state_dir/pipelines/NAME.state ◀─ at once when an incident opens or closes or a warm-up ends
state_dir/incidents.state      ◀─ else once a minute, and at a clean stop; never when nothing is different

The second one holds what is left of the hour's budget of incidents, so that a restart is no new hour.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from dxad import statefile
from dxad.errors import ModelError
from dxad.event import Event
from dxad.incident.docket import Docket
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
_BUDGET: Final = "incidents"
"""What conditions and logs call the state that belongs to no pipeline."""
_URGENT: Final = ("dxad.incident.opened", "dxad.incident.reopened", "dxad.incident.closed")


class Keeping:
    """Writes and reads the state of pipelines, a file for each, and of the budget that they share."""

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
        docket: Docket | None = None,
    ) -> None:
        """Keep the state of those that `pipelines` gives, whenever it is asked, in `folder`.

        That of `docket` is kept beside the folder.
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
        self._docket = docket
        self._docket_looked_at: int | None = None
        self._written: dict[Path, bytes] = {}
        """The hash of what each file holds."""
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
        if event.type.startswith("dxad.incident."):
            self._docket_looked_at = None

    def want(self, name: str) -> None:
        """What somebody has decided about an alarm of a pipeline must not wait either."""
        self._urgent.add(name)

    async def run(self) -> None:
        """Save what is due, until cancelled."""
        while True:
            await self._clock.sleep_until(self._clock.now() + _LOOK_NS)
            await self._save([each for each in self._pipelines().values() if self._due(each)])
            if self._since(self._docket_looked_at) >= _EVERY_NS:
                await self._save_docket()

    async def save(self) -> None:
        """Save everything that is different, now."""
        await self._save(self._pipelines().values())
        await self._save_docket()

    def read(self, name: str) -> Document:
        """The state that a pipeline of this name has left, empty if none; blocking, from any thread.

        A file that is damaged or not ours is set aside and counted: the pipeline begins anew.
        """
        return self._read(self._path(name), name)

    def _read(self, path: Path, name: str) -> Document:
        self._written.pop(path, None)
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
        await self._restore_docket()
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

    async def _restore_docket(self) -> None:
        if self._docket is None:
            return
        saved, now = await asyncio.to_thread(self._read, self._docket_path, _BUDGET), self._clock.now()
        try:
            self._docket.restore(saved, now=now, utc=self._clock.utc(now))
        except ModelError as error:
            self._reject(_BUDGET, "foreign")
            log.warning("%s: %s; the hour begins anew", self._docket_path, error)

    def _reject(self, name: str, reason: str) -> None:
        self._metrics.counter("dxad_states_rejected_total", pipeline=name, reason=reason).add()

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.state"

    @property
    def _docket_path(self) -> Path:
        return self._folder.with_name("incidents.state")

    def _since(self, looked_at: int | None) -> int:
        return _EVERY_NS if looked_at is None else self._clock.now() - looked_at

    def _due(self, pipeline: Pipeline) -> bool:
        name = pipeline.name
        return (
            name in self._urgent
            or self._since(self._looked_at.get(name)) >= _EVERY_NS
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
        if not await self._put(self._path(name), name, state):
            self._urgent.add(name)  # the disk may take it the next time

    async def _save_docket(self) -> None:
        if self._docket is None:
            return
        async with self._saving:
            self._docket_looked_at = self._clock.now()
            state = await self._worker.run(partial(self._docket.save, self._clock.utc))
            if not await self._put(self._docket_path, _BUDGET, state):
                self._docket_looked_at = None

    async def _put(self, path: Path, name: str, state: Document) -> bool:
        """Write a state, if there is one, and tell how it went; returns False if it may go the next time."""
        if not state:
            return True
        try:
            self._written[path] = await asyncio.to_thread(self._write, path, state)
        except OSError as error:
            text = f"{path}: {error.strerror or error}"
            self._health.raise_condition("state.unsaved", name, text)
            return False
        except statefile.StateError as error:
            self._health.raise_condition("state.unsaved", name, f"its state {error}")
            return True
        self._health.clear("state.unsaved", name)
        return True

    def _write(self, path: Path, state: Document) -> bytes:
        raw = statefile.encode(state)
        written = hashlib.sha256(raw).digest()
        if written != self._written.get(path):
            statefile.write(path, raw)
        return written


def _is_warm(pipeline: Pipeline) -> bool:
    """Whether its model knows what is normal: what took a warm-up must not be lost."""
    return pipeline.detector is not None and pipeline.detector.calibration is not None
