"""The service that turns a pipeline's recorded rows into its model.

Recorder full ─▶ rows to a file ─▶ a child fits and calibrates ─▶ a child tries ─▶ shelf ─▶ the pipeline swaps
"""

import asyncio
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import orjson

from dxad import bundle
from dxad.bundle import shelf as shelves
from dxad.bundle.trial import ensure_tried_now, try_bundle
from dxad.config import LearnSection
from dxad.detector import Detector
from dxad.errors import ConfigError, ModelError
from dxad.fields import matching
from dxad.pipeline import Pipeline
from dxad.runtime.backoff import Backoff
from dxad.runtime.clock import Clock
from dxad.runtime.health import Health
from dxad.types import F8, NS_PER_S, Document, Model

__all__ = ["Learning"]

log = logging.getLogger(__name__)

_POLL_NS = NS_PER_S // 4
_TRIAL_S = 300.0


class Learning:
    """Learns for one pipeline: by itself while there is no model, and whenever it is asked to."""

    def __init__(
        self,
        pipeline: Pipeline,
        section: LearnSection,
        shelf: Path,
        *,
        load: Callable[[], Model],
        spare_bytes: int = 0,
        clock: Clock,
        health: Health,
    ) -> None:
        """Put bundles on `shelf`; `load` makes the model of the one that is current there.

        `spare_bytes` of memory may be taken for a longer recording than the configured one.
        """
        self._pipeline = pipeline
        self._section = section
        self._shelf = shelf
        self._load = load
        self._clock = clock
        self._health = health
        self._asked = asyncio.Event()
        self._rows = self._rows_of(section.span)
        self._rows_most = self._rows
        self.allow(spare_bytes)
        self.state: Literal["idle", "recording", "fitting"] = "idle"
        self.error: str | None = None

    def allow(self, spare_bytes: int) -> None:
        """So much memory may be taken for a longer recording than the configured one."""
        self._rows_most = self._rows_of(self._section.span) + max(0, spare_bytes) // self._row_bytes

    def _rows_of(self, span: int) -> int:
        return max(1, span // self._pipeline.stages.schema.period)

    @property
    def _row_bytes(self) -> int:
        return 8 * len(self._pipeline.stages.schema.channels)

    def ask(self, span: int | None = None) -> int:
        """Learn anew from the next `span` nanoseconds of complete rows; returns how many rows that is.

        Raises:
            ConfigError: so many rows would take more memory than `memory_max` leaves.
        """
        rows = self._rows_of(span or self._section.span)
        if rows > self._rows_most:
            most_s = self._rows_most * self._pipeline.stages.schema.period / NS_PER_S
            raise ConfigError(
                f"recording {rows} rows takes {rows * self._row_bytes / 2**20:.0f} MiB; "
                f"memory_max has room for {self._rows_most}, a span of {most_s:.0f}s"
            )
        self._rows = rows
        self._asked.set()
        return self._rows

    @property
    def rows(self) -> int:
        """How many complete rows it learns from."""
        return self._rows

    @property
    def wanted(self) -> bool:
        """Whether there is reason to learn unasked."""
        if self._section.start != "if_missing" or self._pipeline.has_model:
            return False
        return bundle.current(self._shelf) is None  # one that is there and damaged is for somebody to look at

    async def run(self) -> None:
        """Learn whenever there is reason to, until cancelled."""
        if self.wanted:
            self._asked.set()
        waits = Backoff(first_s=1.0, most_s=60.0)
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                await self._learn()
            except ModelError as error:
                self.error = str(error)
                self._health.raise_condition("model.failed", self._pipeline.name, f"learning failed: {error}")
            else:
                waits.reset()
            finally:
                self.state = "idle"
                self._pipeline.recorder = None
            if self.wanted and not self._asked.is_set():
                await self._clock.sleep_until(self._clock.now() + int(waits.next_s() * NS_PER_S))
                self._asked.set()  # the next rows may do

    async def _learn(self) -> None:
        self.state = "recording"
        recorder = self._pipeline.record(self._rows)
        while not recorder.full and not self._asked.is_set():
            await self._clock.sleep_until(self._clock.now() + _POLL_NS)
        if self._asked.is_set():
            return  # asked again, perhaps for another span: begin anew
        self.state = "fitting"
        await self._adopt(recorder.take())

    async def from_history(self) -> str:
        """Learn at once from the rows that the pipeline remembers; returns the model's version.

        Raises:
            ModelError: there is too little to learn from.
        """
        ring = self._pipeline.rows
        values = ring.read(ring.oldest, ring.sealed).values
        return await self._adopt(values[~np.isnan(values).any(axis=1)])

    async def _adopt(self, values: F8) -> str:
        """Fit a model on these rows, put it on the shelf and let the pipeline swap to it."""
        try:
            folder = await asyncio.to_thread(self._desk)
            try:
                answer = await self._fit(folder, values)
                trial = await try_bundle(folder / "bundle")
                if trial.refused is not None:
                    raise ModelError(trial.refused)
                await asyncio.to_thread(shelves.install, self._shelf, folder / "bundle", why="learned")
                self._take_over(await self._fitted())
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError as error:
            raise ModelError(f"{self._shelf}: {error.strerror or error}") from error
        version: str = answer["version"]
        log.info(
            "%s: learned model %s from %d rows, windows of %d",
            self._pipeline.name, version, len(values), answer["rows"],
        )  # fmt: skip
        return version

    def _desk(self) -> Path:
        """A new folder on the shelf's own file system, for what is not finished."""
        self._shelf.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=".learn-", dir=self._shelf))

    def learn_here(self, values: F8) -> str:
        """Learn from these rows while the caller waits, in this very process: where time is not real.

        Args:
            values: (n, channels), finite.

        Returns:
            The model's version.

        Raises:
            ModelError: there is too little to learn from.
        """
        from dxad.training import Recording, learn  # noqa: PLC0415 - the daemon leaves that to its child

        schema = self._pipeline.stages.schema
        by = self._by()
        recording = Recording(
            schema.channels,
            schema.period,
            values,
            self._pipeline.check.learned(),
            by=None if by is None else values[:, [each.id for each in schema.channels].index(by)],
            by_channel=by or "",
        )
        folder = self._desk()
        try:
            made = learn(recording, folder / "bundle", rows_most=self._section.window_rows)
            ensure_tried_now(folder / "bundle")
            shelves.install(self._shelf, folder / "bundle", why="learned")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._take_over(self._pipeline.fitted(self._load()))
        return made.version

    async def _fitted(self) -> Detector:
        """The model of the shelf, made ready beside the event loop: a large graph takes 0.1 s.

        Raises:
            ModelError: it is not for these rows.
        """
        while True:
            section = self._pipeline.section
            model = await asyncio.to_thread(self._load)
            detector = await asyncio.to_thread(self._pipeline.fitted, model, section)
            if self._pipeline.section is section:
                return detector
            model.close()  # a reload wants it otherwise

    def _take_over(self, detector: Detector) -> None:
        self._pipeline.succession.offer(detector)
        self.error = None
        self._health.clear("model.failed", self._pipeline.name)
        self._health.clear("model.missing", self._pipeline.name)

    async def _fit(self, folder: Path, values: F8) -> Document:
        """Fit in a child process: its memory and its crashes are its own."""
        schema = self._pipeline.stages.schema
        head = {
            "channels": [{"id": each.id, "unit": each.unit} for each in schema.channels],
            "period": schema.period,
            "stuck_rows": self._pipeline.check.learned(),
            "by": self._by(),
        }
        recording = folder / "rows.npy"
        await asyncio.to_thread(np.save, recording, values)
        recording.with_suffix(".json").write_bytes(orjson.dumps(head))
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "dxad.training", str(recording), str(folder / "bundle"),
            str(self._section.window_rows), env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(_TRIAL_S):
                out, err = await child.communicate()
        except TimeoutError as error:
            raise ModelError(f"the fit took longer than {_TRIAL_S:g} s") from error
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        try:
            answer: Document = orjson.loads(out)
        except orjson.JSONDecodeError as error:
            last = err.decode(errors="replace").strip().rpartition("\n")[2]
            raise ModelError(f"the fit ended with status {child.returncode}: {last}") from error
        if "error" in answer:
            raise ModelError(answer["error"])
        return answer

    def _by(self) -> str | None:
        """The channel that tells the regimes of the machine apart."""
        by = self._pipeline.section.by
        channels = self._pipeline.stages.schema.channels
        return None if by is None else channels[matching([by], channels)[0]].id

    def snapshot(self) -> Document:
        """How far it is."""
        recorder = self._pipeline.recorder
        return {
            "state": self.state,
            "rows": 0 if recorder is None else recorder.rows,
            "of_rows": self._rows,
            "error": self.error,
        }
