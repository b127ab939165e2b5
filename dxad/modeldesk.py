"""What may be done with the models of pipelines while they run: install, shadow, promote, roll back.

    a folder ─▶ copied ─▶ tried in a child ─▶ fitted to the pipeline ─▶ on the shelf ─▶ beside it, or live
                   └────────── refused: the reason is told, the old one goes on ◀┘

What a succession decides by itself, on the inference thread, is carried out here too: the shelf follows,
and it is told.
"""

import asyncio
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from dxad import plugin
from dxad.bundle import shelf, trial
from dxad.config import Config
from dxad.detector import Detector
from dxad.errors import ConfigError, ModelError
from dxad.event import Event, identity
from dxad.pipeline import Pipeline
from dxad.runtime.clock import Clock
from dxad.runtime.health import Health
from dxad.succession import Turn
from dxad.types import NS_PER_S, Document, Model

__all__ = ["ModelDesk"]

log = logging.getLogger(__name__)

_LOOK_NS: Final = NS_PER_S // 4


class ModelDesk:
    """Serves all pipelines; one thing after the other."""

    def __init__(
        self,
        *,
        config: Callable[[], Config],
        pipelines: Callable[[], Mapping[str, Pipeline]],
        on_event: Callable[[Event], None],
        clock: Clock,
        health: Health,
    ) -> None:
        """Ask for what runs now each time: a reload may have changed it; `on_event` takes what is told."""
        self._config = config
        self._pipelines = pipelines
        self._on_event = on_event
        self._clock = clock
        self._health = health
        self._busy = asyncio.Lock()

    def _shelf(self, name: str) -> Path | None:
        """Where the versions of a pipeline's model lie; None where its kind has none."""
        config = self._config()
        path: Path | None = getattr(config.pipelines[name].model, "path", None)
        return None if path is None else config.state_dir / path

    def _place(self, name: str) -> Path:
        place = self._shelf(name)
        if place is None:
            raise ConfigError(f"the model of pipeline {name!r} is of a kind that has no versions")
        if (place / "manifest.json").exists():
            raise ConfigError(f"{place} is a bundle itself, not a shelf of them: move it to a folder below")
        return place

    def _load(self, name: str, folder: Path) -> Model:
        config = self._config()
        section = config.pipelines[name].model
        assert section is not None
        kind: str = getattr(section, "type")  # noqa: B009 - every plug-in's config has it, the base class has not
        built = plugin.load("models", kind).build
        made: Model = built(section.model_copy(update={"path": folder}), state_dir=config.state_dir)
        return made

    async def models(self, name: str) -> Document:
        """All versions of a pipeline's model, and which of them does what."""
        pipeline, place = self._pipelines()[name], self._shelf(name)
        found = [] if place is None else await asyncio.to_thread(shelf.versions, place)
        detector, beside = pipeline.detector, pipeline.succession.snapshot()
        return {
            "pipeline": name,
            "live": None if detector is None else detector.model.version,
            "beside": beside,
            "versions": [
                {
                    "name": each.name,
                    "current": each.current,
                    "installed": each.installed,
                    "why": each.why,
                    "activated": each.activated,
                    "reason": each.reason,
                }
                for each in found
            ],
        }

    async def install(self, name: str, folder: Path, *, shadow: bool = False) -> Document:
        """Try the bundle in `folder`, put a copy of it on the shelf, and let it take over or score beside.

        Raises:
            ModelError: it is refused; nothing has changed.
            ConfigError: this pipeline's model has no shelf.
        """
        async with self._busy:
            pipeline, place = self._pipelines()[name], self._place(name)
            try:
                await asyncio.to_thread(place.mkdir, parents=True, exist_ok=True)
                work = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=".install-", dir=place))
                try:
                    copy = work / "bundle"
                    await asyncio.to_thread(_copied, folder, copy)
                    detector = await self._tried(pipeline, copy)
                    target = await asyncio.to_thread(
                        shelf.install, place, copy, why="installed", make_current=not shadow
                    )
                finally:
                    await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
            except OSError as error:
                raise ModelError(f"{error.filename or folder}: {error.strerror or error}") from error
            if shadow:
                pipeline.succession.shadow(detector)
            else:
                pipeline.succession.offer(detector)
            return {"pipeline": name, "version": target.name, "shadow": shadow}

    async def promote(self, name: str) -> Document:
        """Let the shadow count.

        Raises:
            ModelError: there is none.
        """
        async with self._busy:
            succession = self._pipelines()[name].succession
            beside = succession.beside
            if succession.role != "shadow" or beside is None:
                raise ModelError(f"pipeline {name!r} has no shadow to promote")
            succession.promote()
            return {"pipeline": name, "version": beside.model.version}

    async def roll_back(self, name: str, version: str | None = None) -> Document:
        """Let an earlier version count again: the one that was replaced, or the one that is named.

        Raises:
            ModelError: there is none, or it is refused.
            ConfigError: this pipeline's model has no shelf.
        """
        async with self._busy:
            pipeline = self._pipelines()[name]
            beside = pipeline.succession.beside
            if version is None and pipeline.succession.role == "retired" and beside is not None:
                pipeline.succession.roll_back()  # it has scored on, and knows the rows of the past
                return {"pipeline": name, "version": beside.model.version}
            place = self._place(name)
            before = await asyncio.to_thread(_current, place)
            if version is None:
                target = await asyncio.to_thread(shelf.rollback, place)
            else:
                target = await asyncio.to_thread(shelf.activate, place, version)
            try:
                detector = await self._tried(pipeline, target)
            except ModelError:
                if before is not None:
                    await asyncio.to_thread(shelf.activate, place, before)
                raise
            pipeline.succession.offer(detector)
            return {"pipeline": name, "version": target.name}

    async def dismiss(self, name: str) -> Document:
        """Let go of the model beside the live one.

        Raises:
            ModelError: there is none.
        """
        async with self._busy:
            succession = self._pipelines()[name].succession
            if succession.role == "none":
                raise ModelError(f"pipeline {name!r} has no model beside its live one")
            succession.dismiss()
            return {"pipeline": name}

    async def _tried(self, pipeline: Pipeline, folder: Path) -> Detector:
        """The model of a bundle, ready to score, after it has shown in a child process that it can."""
        await trial.ensure_tried(folder)
        return pipeline.fitted(await asyncio.to_thread(self._load, pipeline.name, folder))

    async def run(self) -> None:
        """Carry out and tell what the successions have decided, until cancelled."""
        while True:
            await self._clock.sleep_until(self._clock.now() + _LOOK_NS)
            for pipeline in list(self._pipelines().values()):
                while pipeline.succession.turns:
                    await self._follow(pipeline, pipeline.succession.turns.popleft())

    async def _follow(self, pipeline: Pipeline, turn: Turn) -> None:
        name = pipeline.name
        log.info("%s: model %s counts, %s: %s", name, turn.version, turn.kind, turn.reason)
        if turn.kind == "rolled_back":
            self._health.raise_condition("model.rolled_back", name, f"{turn.replaced}: {turn.reason}")
        else:
            self._health.clear("model.rolled_back", name)
        place = self._shelf(name)
        if turn.kind != "installed" and place is not None:
            why: shelf.Why = "promoted" if turn.kind == "promoted" else "rolled back"
            try:
                await asyncio.to_thread(_activate, place, turn.version, why)
            except (OSError, ModelError) as error:
                self._health.raise_condition("model.failed", name, f"the shelf could not follow: {error}")
        if turn.replaced is not None:
            self._on_event(self._event(pipeline, turn))

    def _event(self, pipeline: Pipeline, turn: Turn) -> Event:
        where, utc = pipeline.identity, self._clock.utc(self._clock.now())
        return Event(
            id=identity(where.gateway, where.boot, where.pipeline, turn.kind, turn.version, utc),
            type=f"dxad.model.{turn.kind}",
            source=where.source,
            time_utc=utc,
            subject=turn.version,
            data={
                "pipeline": pipeline.name,
                "version": turn.version,
                "replaced": turn.replaced,
                "reason": turn.reason,
            },
        )


def _copied(folder: Path, copy: Path) -> None:
    """Copy the two files of a bundle, and nothing else that may lie beside them."""
    copy.mkdir()
    for name in ("model.tflite", "manifest.json"):
        shutil.copyfile(folder / name, copy / name)


def _current(place: Path) -> str | None:
    return next((each.name for each in shelf.versions(place) if each.current), None)


def _activate(place: Path, version: str, why: shelf.Why) -> None:
    """Make current what scores under this version, if it lies on the shelf and is not current yet."""
    for each in reversed(shelf.versions(place)):
        if each.name.partition("-")[2] == version:
            if not each.current:
                shelf.activate(place, each.name, why=why)
            return
