"""What may be done with the models of pipelines while they run: install, shadow, promote, roll back.

    a folder ─▶ copied ─▶ tried in a child ─▶ fitted to the pipeline ─▶ on the shelf ─▶ beside it, or live
                   └────────── refused: the reason is told, the old one goes on ◀┘

What a succession decides by itself, on the inference thread, is carried out here too: the shelf follows,
and it is told.
"""

import asyncio
import contextlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from dxad import plugin
from dxad.bundle import shelf, trial
from dxad.config import Config, PipelineSection
from dxad.detector import Detector
from dxad.errors import ConfigError, ModelError
from dxad.event import Event, identity
from dxad.pipeline import Pipeline
from dxad.runtime.clock import Clock
from dxad.runtime.health import Health
from dxad.succession import Settled, Turn
from dxad.types import NS_PER_S, Document, Model

__all__ = ["ModelDesk"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_LOOK_NS: Final = NS_PER_S // 4
_PATIENCE_S: Final = 1.0
"""How long whoever asks is kept waiting for the next row, with which it is done."""


@dataclass(frozen=True, slots=True)
class _Fit:
    """A detector, and what it was made for: a reload may have changed that before it is used."""

    pipeline: Pipeline
    section: PipelineSection
    detector: Detector


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
        section = config.pipelines.get(name)
        path: Path | None = None if section is None else getattr(section.model, "path", None)
        return None if path is None else config.state_dir / path

    def _place(self, name: str) -> Path:
        place = self._shelf(name)
        if place is None:
            raise ConfigError(f"the model of pipeline {name!r} is of a kind that has no versions")
        if (place / "manifest.json").exists():
            raise ConfigError(f"{place} is a bundle itself, not a shelf of them: move it to a folder below")
        return place

    def _load(self, section: PipelineSection, folder: Path) -> Model:
        assert section.model is not None
        kind: str = getattr(section.model, "type")  # noqa: B009 - every plug-in's config has it, the base class has not
        built = plugin.load("models", kind).build
        model = section.model.model_copy(update={"path": folder})
        made: Model = built(model, state_dir=self._config().state_dir)
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
            place = self._place(name)
            with _refusing(folder):
                await asyncio.to_thread(place.mkdir, parents=True, exist_ok=True)
                work = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=".install-", dir=place))
                try:
                    copy = work / "bundle"
                    await asyncio.to_thread(_copied, folder, copy)
                    fit = await self._tried(name, copy)
                    move = partial(shelf.install, place, copy, why="installed", make_current=not shadow)
                    target, in_force = await _unbroken(self._put(fit, move, shadow=shadow))
                finally:
                    await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
            return {"pipeline": name, "version": target.name, "shadow": shadow, "in_force": in_force}

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
            in_force = await _fulfilled(succession.promote())
            return {"pipeline": name, "version": beside.model.version, "in_force": in_force}

    async def roll_back(self, name: str, version: str | None = None) -> Document:
        """Let an earlier version count again: the one that was replaced, or the one that is named.

        Raises:
            ModelError: there is none, or it is refused; nothing has changed.
            ConfigError: this pipeline's model has no shelf.
        """
        async with self._busy:
            succession = self._pipelines()[name].succession
            beside = succession.beside
            if version is None and succession.role == "retired" and beside is not None:
                with contextlib.suppress(ModelError):  # its probation has just ended: it is on the shelf
                    in_force = await _fulfilled(succession.roll_back())  # it knows the rows of the past
                    return {"pipeline": name, "version": beside.model.version, "in_force": in_force}
            place = self._place(name)
            with _refusing(place):
                if version is None:
                    why: shelf.Why = "rolled back"
                    target = await asyncio.to_thread(shelf.previous, place)
                else:
                    why = "activated"
                    target = await asyncio.to_thread(shelf.find, place, version)
                fit = await self._tried(name, target)
                move = partial(shelf.activate, place, target.name, why=why)
                target, in_force = await _unbroken(self._put(fit, move))
            return {"pipeline": name, "version": target.name, "in_force": in_force}

    async def dismiss(self, name: str) -> Document:
        """Let go of the model beside the live one.

        Raises:
            ModelError: there is none.
        """
        async with self._busy:
            succession = self._pipelines()[name].succession
            if succession.role == "none":
                raise ModelError(f"pipeline {name!r} has no model beside its live one")
            return {"pipeline": name, "in_force": await _fulfilled(succession.dismiss())}

    async def _tried(self, name: str, folder: Path) -> _Fit:
        """The model of a bundle, ready to score, after it has shown in a child process that it can.

        Raises:
            ModelError: it is refused, or the pipeline is there no more.
        """
        await trial.ensure_tried(folder)
        return await self._fitted(name, folder)

    async def _fitted(self, name: str, folder: Path) -> _Fit:
        """The model of a bundle, made for the pipeline that runs under this name when it is ready."""
        while True:
            pipeline = self._pipelines().get(name)
            if pipeline is None:
                raise ModelError(f"pipeline {name!r} is there no more")
            section = pipeline.section
            model = await asyncio.to_thread(self._load, section, folder)
            fit = _Fit(pipeline, section, await asyncio.to_thread(pipeline.fitted, model, section))
            if self._fits(fit):
                return fit
            model.close()

    def _fits(self, fit: _Fit) -> bool:
        """Whether no reload has come in between."""
        pipeline = fit.pipeline
        return self._pipelines().get(pipeline.name) is pipeline and pipeline.section is fit.section

    async def _put(self, fit: _Fit, move: Callable[[], Path], *, shadow: bool = False) -> tuple[Path, bool]:
        """Change the shelf, then let the detector count, or score beside, in the pipeline that runs then.

        Returns the version's folder, and whether it is done already.
        """
        target = await asyncio.to_thread(move)
        while True:
            if not self._fits(fit):
                fit.detector.model.close()
                fit = await self._fitted(fit.pipeline.name, target)
            succession = fit.pipeline.succession
            wish = succession.shadow if shadow else succession.offer
            try:
                return target, await _fulfilled(wish(fit.detector))
            except ModelError:
                if self._fits(fit):
                    raise

    async def run(self) -> None:
        """Carry out and tell what the successions have decided, until cancelled."""
        while True:
            await self._clock.sleep_until(self._clock.now() + _LOOK_NS)
            for pipeline in list(self._pipelines().values()):
                await self.follow(pipeline)

    async def follow(self, pipeline: Pipeline) -> None:
        """Carry out and tell what this one's succession has decided; it may have been replaced meanwhile."""
        while pipeline.succession.turns:
            await self._follow(pipeline, pipeline.succession.turns.popleft())

    async def _follow(self, pipeline: Pipeline, turn: Turn) -> None:
        name = pipeline.name
        if turn.kind == "dismissed":
            log.warning("%s: model %s is let go: %s", name, turn.replaced, turn.reason)
        else:
            log.info("%s: model %s counts, %s: %s", name, turn.version, turn.kind, turn.reason)
            await self._carry_out(name, turn)
        if turn.replaced is not None:
            self._on_event(self._event(pipeline, turn))

    async def _carry_out(self, name: str, turn: Turn) -> None:
        """Another model counts: let the conditions and the shelf say so."""
        if name not in self._pipelines():
            return
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

    def _event(self, pipeline: Pipeline, turn: Turn) -> Event:
        where = pipeline.identity
        return Event(
            id=identity(where.gateway, where.boot, where.pipeline, turn.kind, turn.version, turn.at),
            type=f"dxad.model.{turn.kind}",
            source=where.source,
            time_utc=self._clock.utc(turn.at),
            at=turn.at,
            subject=turn.version,
            data={
                "pipeline": pipeline.name,
                "version": turn.version,
                "replaced": turn.replaced,
                "reason": turn.reason,
            },
        )


async def _fulfilled(settled: Settled) -> bool:
    """Whether a wish is fulfilled, after a short while; if not, it will be with the next row.

    Raises:
        ModelError: it cannot be.
    """
    answer = asyncio.wrap_future(settled)
    try:
        await asyncio.wait([answer], timeout=_PATIENCE_S)
        if not answer.done():
            return False
        refused = answer.result()
    finally:
        answer.cancel()  # nobody waits any more
    if refused is not None:
        raise ModelError(refused)
    return True


async def _unbroken(work: Coroutine[Any, Any, T]) -> T:
    """Do what must be done whole or not at all, whoever leaves meanwhile."""
    task = asyncio.create_task(work, name="models.change")
    try:
        return await asyncio.shield(task)
    finally:
        if not task.done():
            await asyncio.wait([task])


@contextlib.contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Raises ModelError: a file cannot be read or written."""
    try:
        yield
    except OSError as error:
        raise ModelError(f"{error.filename or path}: {error.strerror or error}") from error


def _copied(folder: Path, copy: Path) -> None:
    """Copy the two files of a bundle, and nothing else that may lie beside them."""
    copy.mkdir()
    for name in ("model.tflite", "manifest.json"):
        shutil.copyfile(folder / name, copy / name)


def _activate(place: Path, version: str, why: shelf.Why) -> None:
    """Make current what scores under this version, if it lies on the shelf and is not current yet."""
    for each in reversed(shelf.versions(place)):
        if each.name.partition("-")[2] == version:
            if not each.current:
                shelf.activate(place, each.name, why=why)
            return
