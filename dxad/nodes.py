"""From sections of a configuration to nodes: sources with their rings, pipelines, learners, sinks.

Nothing is started here, connected to or told to anybody, so that nodes which turn out not to be wanted can be
dropped; it may run in another thread than the event loop's.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from dxad import plugin
from dxad.bundle import current
from dxad.bundle.trial import ensure_tried_now
from dxad.changes import NONE, Change, Changes
from dxad.config import Config, PipelineSection, shape
from dxad.deliver import Deliver
from dxad.detector import Detector
from dxad.errors import ConfigError, ModelError, Problem
from dxad.fields import SourceSection, matching
from dxad.frame import Feature, Feed, Frame
from dxad.incident import Identity
from dxad.incident.docket import Docket
from dxad.ingest import Ingest
from dxad.learning import Learning
from dxad.outbox import Outbox
from dxad.pipeline import BATCH, Pipeline, Stages
from dxad.ring.journal import Confirming, Journal
from dxad.ring.ringbuffer import RingBuffer
from dxad.runtime.clock import Clock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.shape import FeatureShape, Shape, build, chain
from dxad.sinksection import SinkSection
from dxad.sizes import HISTORY, feature_slots, memory, ring_slots
from dxad.telemetry import Telemetry
from dxad.telemetrysection import journaling
from dxad.types import Model, Schema, Sink, Source

__all__ = ["Builder", "Built", "Nodes", "Run", "forget_gone"]

Run = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Nodes:
    """All nodes of one configuration, by name."""

    config: Config
    ingests: dict[str, Ingest]
    pipelines: dict[str, Pipeline]
    learnings: dict[str, Learning]
    delivers: dict[str, Deliver]
    telemetries: dict[str, Telemetry]


@dataclass(frozen=True, slots=True)
class Built:
    """Nodes that are ready to run, and what is to be done when they do."""

    nodes: Nodes
    detectors: dict[str, Detector]
    """By pipeline, what takes over there once it runs."""
    spare_bytes: int
    """What `memory_max` leaves for longer recordings."""
    missing: dict[str, str]
    """By pipeline, why it has no model yet: rows are recorded and not scored."""


class Builder:
    """Makes nodes."""

    def __init__(
        self,
        *,
        docket: Docket,
        boot: str,
        clock: Clock,
        health: Health,
        metrics: Metrics,
        outbox: Outbox,
        on_rows: Callable[[], None],
        sources: Mapping[str, Source] | None = None,
        sinks: Mapping[str, Sink] | None = None,
        models: Mapping[str, Model] | None = None,
        ring_rows: Mapping[str, int] | None = None,
        history: int = HISTORY,
        batch: int = BATCH,
        backlog: int | None = None,
    ) -> None:
        """See `Assembly` for what all of these are; `on_rows` is called when a source sealed rows itself."""
        self._docket = docket
        self._boot = boot
        self._clock = clock
        self._health = health
        self._metrics = metrics
        self._outbox = outbox
        self._on_rows = on_rows
        self._sources = dict(sources or {})
        self._sinks = dict(sinks or {})
        self._models = dict(models or {})
        self._ring_rows = ring_rows
        self._history = history
        self._batch = batch
        self._backlog = backlog

    def nodes(self, config: Config, *, old: Nodes | None = None, changes: Changes = NONE) -> Built:
        """The nodes of `config`: those of `old` where nothing is different, new ones elsewhere.

        Args:
            config: what to build.
            old: nodes that are there already.
            changes: what makes their configuration this one.

        Raises:
            ConfigError: it needs more memory than it may, a plug-in refuses its section, or a pipeline that
                scores would lose its model.
        """
        old = old or Nodes(config, {}, {}, {}, {}, {})
        spare = self._spare_bytes(config)
        ingests = {
            name: self._ingest(name, section, config.state_dir)
            if name not in old.ingests or changes.fate("sources", name)
            else old.ingests[name]
            for name, section in config.sources.items()
        }
        built = Built(Nodes(config, ingests, {}, {}, {}, {}), {}, spare, {})
        for name in config.pipelines:
            change = changes.of("pipelines", name)
            self._add_pipeline(built, name, change, old.pipelines.get(name))
            known = name in old.pipelines and not (change is not None and change.relearned)
            learning = old.learnings.get(name) if known else self._learning(built.nodes, name, spare)
            if learning is not None:
                built.nodes.learnings[name] = learning
        for name, section in config.sinks.items():
            known = name in old.delivers and not changes.fate("sinks", name)
            built.nodes.delivers[name] = old.delivers[name] if known else self._deliver(config, name, section)
        for name in config.telemetry:
            changed = changes.fate("telemetry", name) is not None
            built.nodes.telemetries[name] = self._telemetry(
                built.nodes, name, old.telemetries.get(name), changed=changed
            )
        return built

    def _add_pipeline(self, built: Built, name: str, change: Change | None, old: Pipeline | None) -> None:
        """Add a new pipeline, or the old one where it goes on, perhaps with another detector."""
        nodes = built.nodes
        goes_on = old is not None and (change is None or change.fate == "adjusted")
        pipeline = old if old is not None and goes_on else self._pipeline(nodes, name)
        nodes.pipelines[name] = pipeline
        if nodes.config.pipelines[name].model is None:
            return
        if goes_on and not (change is not None and change.rescored):
            return
        detector, why = self._detector(nodes.config, name, pipeline)
        if detector is None:
            if old is not None and old.has_model and nodes.config.pipelines[name].learn is None:
                text = f"the pipeline would lose the one it has: {why}"
                raise ConfigError(problems=[Problem("config", f"pipelines.{name}.model", text)])
            built.missing[name] = why
        else:
            built.detectors[name] = detector

    def _spare_bytes(self, config: Config) -> int:
        """What `memory_max` leaves; nothing in process, where the caller sizes the rings.

        Raises:
            ConfigError: it is too little.
        """
        if self._ring_rows is not None:
            return 0
        sizes = memory(config)
        total, most = sum(sizes.values()), config.memory_max
        if total > most:
            largest = max(sizes, key=lambda name: sizes[name])
            text = (
                f"allows {most / 2**20:.1f} MiB, the buffers need {total / 2**20:.1f} MiB; "
                f"the largest is {largest} with {sizes[largest] / 2**20:.1f} MiB"
            )
            raise ConfigError(problems=[Problem("config", "memory_max", text)])
        return most - total

    def _ingest(self, name: str, section: SourceSection, state_dir: Path) -> Ingest:
        source = self._sources.get(name)
        if source is None:
            kept = {"state_dir": state_dir} if section.keeps_state else {}
            source = plugin.load("sources", _kind(section)).build(name, section, clock=self._clock, **kept)
        period = section.period or 1
        start = self._clock.now() // period if section.period else 0
        ring = RingBuffer(
            section.declared(name),
            period=period,
            slots=ring_slots(section) if self._ring_rows is None else self._ring_rows[name],
            start=start,
        )
        journal = None
        if section.awaits_outbox and isinstance(source, Confirming):  # not what stands in for it in a replay
            journal = Journal(ring.channels, period=period, capacity=section.queue)
        return Ingest(
            name, source, section, ring, clock=self._clock, health=self._health, metrics=self._metrics,
            on_rows=self._on_rows, journal=journal,
        )  # fmt: skip

    def _pipeline(self, nodes: Nodes, name: str) -> Pipeline:
        section = nodes.config.pipelines[name]
        return Pipeline(
            name,
            section,
            self._stages(section, shape(section, nodes.config.sources), nodes.ingests),
            identity=Identity(nodes.config.gateway.id, self._boot, name),
            history=self._history,
            batch=self._batch,
            backlog=self._backlog,
            docket=self._docket,
            clock=self._clock,
            health=self._health,
            metrics=self._metrics,
        )

    def _detector(self, config: Config, name: str, pipeline: Pipeline) -> tuple[Detector | None, str]:
        """The detector of the model that is there, or why there is none."""
        section = config.pipelines[name]
        try:
            return pipeline.fitted(self._models.get(name) or self._load(config, name), section), ""
        except ModelError as error:
            learns = section.learn is not None and section.learn.start == "if_missing"
            shelf = _shelf(config, name)
            missing = learns and shelf is not None and current(shelf) is None
            return None, "learning what is normal" if missing else str(error)

    def _stages(self, section: PipelineSection, found: Shape, ingests: Mapping[str, Ingest]) -> Stages:
        feeds = [Feed(ingests[name].ring, columns) for name, columns in found.feeds]
        features = tuple(_feature(each, ingests[each.source].ring) for each in found.features)
        feeds += [Feed(each.ring, tuple(range(len(each.ring.channels)))) for each in features]
        return Stages(
            features,
            Frame(feeds, period=found.joined.period),
            found.outputs,
            transforms=lambda: chain(section.transforms, found.joined)[0],
            vacant=partial(_vacant, tuple(_columns(found)), ingests),
        )

    def _load(self, config: Config, name: str) -> Model:
        """The model of the configuration; one from a bundle was tried before, or is now (0.4 s)."""
        section = config.pipelines[name].model
        assert section is not None, "a pipeline of limits alone has nothing to load"
        for path in section.bundles():
            ensure_tried_now(config.state_dir / path)
        made: Model = plugin.load("models", _kind(section)).build(section, state_dir=config.state_dir)
        return made

    def _learning(self, nodes: Nodes, name: str, spare_bytes: int) -> Learning | None:
        learn, shelf = nodes.config.pipelines[name].learn, _shelf(nodes.config, name)
        if learn is None or shelf is None:
            return None
        return Learning(
            nodes.pipelines[name], learn, shelf, load=partial(self._load, nodes.config, name),
            spare_bytes=spare_bytes, clock=self._clock, health=self._health,
        )  # fmt: skip

    def _telemetry(self, nodes: Nodes, name: str, old: Telemetry | None, *, changed: bool) -> Telemetry:
        """The old one, if it reads the same rings in the same way; or one that goes on where it ends."""
        section = nodes.config.telemetry[name]
        feeds = {
            source: Feed(ingest.ring, tuple(columns))
            for source, ingest in nodes.ingests.items()
            if (columns := matching(section.channels, ingest.ring.channels))
        }
        scores = {
            pipeline: Feed(each.scores, tuple(range(len(each.scores.channels))))
            for pipeline, each in nodes.pipelines.items()
            if any(fnmatchcase(pipeline, pattern) for pattern in section.pipelines)
        }
        sources = nodes.config.sources
        journals = {
            source: ingest.journal
            for source, ingest in nodes.ingests.items()
            if ingest.journal is not None
            and journaling(nodes.config.telemetry, source, sources[source]) == name
        }
        reads = (feeds, scores, journals)
        if old is not None and not changed and reads == (old.feeds, old.scores, old.journals):
            return old
        return Telemetry(
            name, section, feeds, scores, gateway=nodes.config.gateway.id, outbox=self._outbox,
            clock=self._clock, health=self._health, metrics=self._metrics, before=old, journals=journals,
        )  # fmt: skip

    def _deliver(self, config: Config, name: str, section: SinkSection) -> Deliver:
        sink = self._sinks.get(name)
        if sink is None:
            who = {"gateway": config.gateway.id} if section.names_gateway else {}
            made = plugin.load("sinks", _kind(section))
            sink = made.build(name, section, state_dir=config.state_dir, **who)
        return Deliver(
            name, sink, self._outbox, section, clock=self._clock, health=self._health, metrics=self._metrics
        )


def forget_gone(metrics: Metrics, old: Nodes, new: Nodes) -> None:
    """Let go of what was counted of nodes that are there no more."""
    for name in old.pipelines.keys() - new.pipelines.keys():
        metrics.forget(pipeline=name)
        for place in (f"pipelines.{name}", f"pipelines.{name}.features"):
            metrics.forget(place=place)
    for name in old.ingests.keys() - new.ingests.keys():
        metrics.forget(source=name)
        metrics.forget(place=f"sources.{name}")
    for name in old.delivers.keys() - new.delivers.keys():
        metrics.forget(sink=name)
    for name in old.telemetries.keys() - new.telemetries.keys():
        metrics.forget(telemetry=name)


def _columns(found: Shape) -> Iterator[tuple[str, int]]:
    """All that a pipeline reads: sources, and columns of them."""
    for name, columns in (*found.feeds, *((each.source, each.columns) for each in found.features)):
        yield from ((name, column) for column in columns)


def _vacant(read: Sequence[tuple[str, int]], ingests: Mapping[str, Ingest]) -> bool:
    """Whether none of these columns has a device yet, of those that take them as they appear."""
    devices = {name: getattr(ingests[name].source, "devices", ()) for name, _ in read}
    return bool(read) and all(
        column < len(devices[name]) and not devices[name][column] for name, column in read
    )


def _shelf(config: Config, name: str) -> Path | None:
    path = getattr(config.pipelines[name].model, "path", None)
    return None if path is None else config.state_dir / path


def _feature(found: FeatureShape, ring: RingBuffer) -> Feature:
    transform = build(found.section)
    outputs: Schema = transform.outputs(found.inputs)
    slots = feature_slots(found, ring.slots * ring.period)
    return Feature(Feed(ring, found.columns), transform, outputs, slots=slots)


def _kind(section: Any) -> str:
    kind: str = section.type
    return kind
