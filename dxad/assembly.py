"""The composition root that the daemon and the in-process API share: a Config becomes services.

sources ─▶ Ingest ─▶ ring ─┐                                    ┌─▶ Deliver ─▶ sink
sources ─▶ Ingest ─▶ ring ─┼─▶ Pipeline ─▶ event ─▶ Outbox ─────┼─▶ Deliver ─▶ sink
              ▲            └─▶ Pipeline       ▲                 └─ …
              │ seal                          │ step
              └────────── Ticker ───────▶ Scoring (inference thread)
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from dxad import plugin
from dxad.alarmsection import Action
from dxad.archive import Archive
from dxad.bundle import current
from dxad.config import Config, PipelineSection, shape
from dxad.deliver import Deliver
from dxad.docket import Docket
from dxad.errors import ConfigError, ModelError
from dxad.event import Event, identity, to_record
from dxad.evidence import Evidence
from dxad.fields import SinkSection, SourceSection
from dxad.frame import Feature, Feed, Frame
from dxad.incident import Identity
from dxad.ingest import Ingest
from dxad.learning import Learning
from dxad.outbox import Outbox
from dxad.pipeline import BATCH, Pipeline, Stages
from dxad.ringbuffer import RingBuffer
from dxad.runtime.clock import Clock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.runtime.ticker import Ticker
from dxad.runtime.worker import Worker
from dxad.scoring import Scoring
from dxad.shape import FeatureShape, Shape, build, chain
from dxad.sizes import HISTORY, feature_slots, memory, ring_slots
from dxad.types import Model, Schema, Sink, Source

__all__ = ["PROFILES", "Assembly", "memory"]

log = logging.getLogger(__name__)

Run = Callable[[], Awaitable[None]]

PROFILES: Final = {
    "low_latency": (10_000_000, 0.005),
    "balanced": (50_000_000, 0.050),
    "sd_card": (250_000_000, 0.250),
}
"""By profile: nanoseconds between two ticks, and seconds that a commit waits for company."""


class Assembly:
    """All services of one configuration, built but not started."""

    def __init__(
        self,
        config: Config,
        *,
        boot: str,
        clock: Clock,
        health: Health,
        metrics: Metrics,
        outbox: Outbox,
        sources: Mapping[str, Source] | None = None,
        sinks: Mapping[str, Sink] | None = None,
        models: Mapping[str, Model] | None = None,
        ring_rows: Mapping[str, int] | None = None,
        history: int = HISTORY,
        batch: int = BATCH,
        backlog: int | None = None,
    ) -> None:
        """Build everything `config` names.

        Args:
            config: what to build.
            boot: the id of this boot, part of every incident's id.
            clock: asked for every time.
            health: told of every condition.
            metrics: counts everything.
            outbox: takes every event; opened and closed by the caller.
            sources: nodes that exist already, by name: they stand in for those of the configuration.
            sinks: likewise.
            models: likewise, by pipeline.
            ring_rows: slots of the sources' rings, by name; without it, `keep` tells.
            history: rows that each pipeline remembers.
            batch: rows that a pipeline takes at once.
            backlog: rows that may wait for a pipeline; None is all that the rings hold.

        Raises:
            ConfigError: it needs more memory than it may, or a plug-in refuses its section.
        """
        self.config = config
        self.outbox = outbox
        self.health = health
        self.on_event: Callable[[Event], None] = self._store
        self._boot = boot
        self._clock = clock
        self._metrics = metrics
        self._history = history
        self._ring_rows = ring_rows
        self._batch = batch
        self._backlog = backlog
        self._models = dict(models or {})
        self.docket = Docket(
            config.incidents, gateway=config.gateway.id, boot=boot, config_hash=_hash(config), health=health
        )
        self.archive: Archive | None = None
        if ring_rows is None:
            self._check_memory()
            self.archive = self._archive()
        tick_ns, _ = PROFILES[config.profile]
        self.worker = Worker("inference")
        self.ingests = {
            name: self._ingest(name, section, (sources or {}).get(name))
            for name, section in config.sources.items()
        }
        self.pipelines = {name: self._pipeline(name) for name in config.pipelines}
        self.learnings = {name: each for name in config.pipelines if (each := self._learning(name))}
        self.delivers = {
            name: self._deliver(name, section, (sinks or {}).get(name))
            for name, section in config.sinks.items()
        }
        self.scoring = Scoring(
            self.pipelines.values(),
            self.worker,
            health=health,
            on_event=self._tell,
        )
        self.ticker = Ticker(
            clock,
            period=tick_ns,
            calls=[*(each.tick for each in self.ingests.values()), self.scoring.tick],
        )

    def services(self) -> dict[str, Run]:
        """What the supervisor shall run, by name; what consumes comes before what produces."""
        return {
            **{f"deliver.{name}": each.run for name, each in self.delivers.items()},
            "scoring": self.scoring.run,
            **{f"learning.{name}": each.run for name, each in self.learnings.items()},
            **({} if self.archive is None else {"archive": self.archive.run}),
            "ticker": self.ticker.run,
            **{f"ingest.{name}": each.run for name, each in self.ingests.items()},
        }

    async def forget_removed_sinks(self) -> None:
        """Keep nothing more for sinks of an earlier configuration: nobody would ever fetch it."""
        for name in self.outbox.sinks - self.delivers.keys():
            log.warning("sink %s is no longer configured: what waited for it alone is dropped", name)
            await self.outbox.unsubscribe(name)

    def interrupt(self) -> None:
        """All services have ended: close the incidents that are open, while the outbox still takes events."""
        for pipeline in self.pipelines.values():
            for event in pipeline.interrupt():
                self._tell(event)
        for event in self.docket.flush():
            self._tell(event)
        if self.archive is not None:
            self.archive.store()

    def close(self) -> None:
        """Let go of threads and models, once the services have stopped."""
        self.worker.close()
        for pipeline in self.pipelines.values():
            pipeline.succession.close()

    async def act(self, alarm: str, action: Action, *, until: int | None = None) -> None:
        """Do to an alarm what somebody has decided, and tell what comes of it.

        Raises:
            ConfigError: there is no such alarm, or it is in no state for it.
        """
        pipeline = self.pipelines.get(alarm.partition(".")[0])
        if pipeline is None:
            raise ConfigError(f"no alarm {alarm!r}")
        for event in await self.worker.run(partial(pipeline.watch.act, alarm, action, until=until)):
            self._tell(event)

    def _archive(self) -> Archive:
        section = self.config.incidents
        evidence = Evidence(
            self.config.state_dir / "evidence", files=section.evidence_files, size=section.evidence_size
        )
        return Archive(self.docket, evidence, clock=self._clock, health=self.health)

    def _tell(self, event: Event) -> None:
        self.on_event(event)

    def _wake(self) -> None:
        self.scoring.wake()

    def _spare_bytes(self) -> int:
        """What `memory_max` leaves; nothing in process, where the caller sizes the rings."""
        return self.config.memory_max - sum(memory(self.config).values()) if self._ring_rows is None else 0

    def _check_memory(self) -> None:
        sizes = memory(self.config)
        total, most = sum(sizes.values()), self.config.memory_max
        if self._spare_bytes() < 0:
            largest = max(sizes, key=lambda name: sizes[name])
            raise ConfigError(
                f"the buffers need {total / 2**20:.1f} MiB, memory_max allows {most / 2**20:.1f} MiB; "
                f"the largest is {largest} with {sizes[largest] / 2**20:.1f} MiB"
            )

    def _store(self, event: Event) -> None:
        """Hand an event to the outbox; it says so in the log once it is durable."""
        stored = self.outbox.append(to_record(event))
        stored.add_done_callback(partial(_log_stored, event))

    def _ingest(self, name: str, section: SourceSection, source: Source | None) -> Ingest:
        if source is None:
            source = plugin.load("sources", _kind(section)).build(name, section, clock=self._clock)
        period = section.period or 1
        start = self._clock.now() // period if section.period else 0
        ring = RingBuffer(
            section.declared(name),
            period=period,
            slots=ring_slots(section) if self._ring_rows is None else self._ring_rows[name],
            start=start,
        )
        return Ingest(
            name, source, section, ring, clock=self._clock, health=self.health, metrics=self._metrics,
            on_rows=self._wake,
        )  # fmt: skip

    def _pipeline(self, name: str) -> Pipeline:
        section = self.config.pipelines[name]
        found = shape(section, self.config.sources)
        pipeline = Pipeline(
            name,
            section,
            self._stages(section, found),
            identity=Identity(self.config.gateway.id, self._boot, name),
            history=self._history,
            batch=self._batch,
            backlog=self._backlog,
            docket=self.docket,
            clock=self._clock,
            health=self.health,
            metrics=self._metrics,
        )
        if section.model is not None:
            self._first_model(pipeline)
        return pipeline

    def _stages(self, section: PipelineSection, found: Shape) -> Stages:
        feeds = [Feed(self.ingests[name].ring, columns) for name, columns in found.feeds]
        features = tuple(self._feature(each) for each in found.features)
        feeds += [Feed(each.ring, tuple(range(len(each.ring.channels)))) for each in features]
        return Stages(
            features,
            Frame(feeds, period=found.joined.period),
            found.outputs,
            transforms=lambda: chain(section.transforms, found.joined)[0],
        )

    def _feature(self, found: FeatureShape) -> Feature:
        ring = self.ingests[found.source].ring
        transform = build(found.section)
        outputs: Schema = transform.outputs(found.inputs)
        slots = feature_slots(found, ring.slots * ring.period)
        return Feature(Feed(ring, found.columns), transform, outputs, slots=slots)

    def _first_model(self, pipeline: Pipeline) -> None:
        """The model that is there at the start, if one is: without it, rows are recorded and not scored."""
        try:
            pipeline.offer(self._models.get(pipeline.name) or self._load(pipeline.name))
        except ModelError as error:
            learn = pipeline.section.learn
            if learn is not None and learn.start == "if_missing" and self._shelf_is_empty(pipeline.name):
                self.health.raise_condition("model.missing", pipeline.name, "learning what is normal")
            else:
                self.health.raise_condition("model.missing", pipeline.name, str(error))

    def _load(self, name: str) -> Model:
        section = self.config.pipelines[name].model
        made: Model = plugin.load("models", _kind(section)).build(section, state_dir=self.config.state_dir)
        return made

    def _shelf(self, name: str) -> Path | None:
        path = getattr(self.config.pipelines[name].model, "path", None)
        return None if path is None else self.config.state_dir / path

    def _shelf_is_empty(self, name: str) -> bool:
        shelf = self._shelf(name)
        return shelf is not None and current(shelf) is None

    def _learning(self, name: str) -> Learning | None:
        pipeline, shelf = self.pipelines[name], self._shelf(name)
        learn = pipeline.section.learn
        if learn is None or shelf is None:
            return None
        return Learning(
            pipeline, learn, shelf, load=partial(self._load, name), spare_bytes=self._spare_bytes(),
            clock=self._clock, health=self.health,
        )  # fmt: skip

    def _deliver(self, name: str, section: SinkSection, sink: Sink | None) -> Deliver:
        if sink is None:
            sink = plugin.load("sinks", _kind(section)).build(name, section, state_dir=self.config.state_dir)
        return Deliver(
            name, sink, self.outbox, section, clock=self._clock, health=self.health, metrics=self._metrics
        )


def _kind(section: Any) -> str:
    kind: str = section.type
    return kind


def _hash(config: Config) -> str:
    """What tells this configuration from another; secrets stand in it by reference."""
    return identity(config.model_dump_json(serialize_as_any=True))[:16]


def _log_stored(event: Event, stored: Any) -> None:
    if stored.cancelled():
        log.error("%s %s: not stored, the outbox was closed", event.type, event.subject)
    elif stored.exception() is not None:
        log.error("%s %s: not stored: %s", event.type, event.subject, stored.exception())
    else:
        log.info("%s %s: stored as event %s", event.type, event.subject, event.id)
