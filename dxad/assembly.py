"""The composition root that the daemon and the in-process API share: a Config becomes services.

sources ─▶ Ingest ─▶ ring ─┐                                    ┌─▶ Deliver ─▶ sink
sources ─▶ Ingest ─▶ ring ─┼─▶ Pipeline ─▶ event ─▶ Outbox ─────┼─▶ Deliver ─▶ sink
              ▲            └─▶ Pipeline       ▲                 └─ …
              │ seal                          │ step
              └────────── Ticker ───────▶ Scoring (inference thread)

A reload swaps parts of this picture while the others run:

    prepare   build what is new; a mistake ends it here, and nothing has happened
    apply     stop what goes ─▶ between two batches: hand over, start what comes, swap ─▶ tidy up
                   └───── an error: what was stopped runs again ◀┘
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

from dxad.alarmsection import Action
from dxad.changes import Changes, diff
from dxad.config import Config
from dxad.deliver import Deliver
from dxad.errors import ConfigError, ModelError, Problem
from dxad.event import Event, Told, identity, to_record
from dxad.incident.archive import Archive
from dxad.incident.docket import Docket
from dxad.incident.evidence import Evidence
from dxad.ingest import Ingest
from dxad.learning import Learning
from dxad.modeldesk import ModelDesk
from dxad.nodes import Builder, Built, Nodes, Run, forget_gone
from dxad.outbox import Limits, Outbox
from dxad.outbox.leasing import PREFIX
from dxad.pipeline import BATCH, Pipeline
from dxad.pulling import Consumers, Declared
from dxad.runtime.clock import Clock
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.runtime.supervisor import Supervisor
from dxad.runtime.ticker import Ticker
from dxad.runtime.worker import Worker
from dxad.scoring import Scoring
from dxad.sizes import HISTORY, memory
from dxad.telemetry import Telemetry
from dxad.timekeeping import Timekeeping
from dxad.types import Coalescing, Document, Model, Sink, Source

__all__ = ["PROFILES", "Assembly", "Prepared", "hash_of", "memory"]

log = logging.getLogger(__name__)


class Profile(NamedTuple):
    """Latency against processor time and flash wear."""

    tick_ns: int
    """Between two looks for rows that are due."""
    commit_window_s: float
    """How long a commit waits for company."""
    coalesce_s: float
    """How long what comes over a network waits, to be parsed together."""
    patience_s: float
    """How long what was parsed waits, to be read into its ring together."""


PROFILES: Final = {
    "low_latency": Profile(10_000_000, 0.005, 0.010, 0.0),
    "balanced": Profile(50_000_000, 0.050, 0.020, 0.020),
    "sd_card": Profile(250_000_000, 0.250, 0.020, 0.060),
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """What another configuration needs, built and waiting to take over."""

    changes: Changes
    built: Built

    def discard(self) -> None:
        """It is not wanted: let go of the models that were made for it."""
        for detector in self.built.detectors.values():
            detector.model.close()


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
        self.outbox = outbox
        self._metrics = metrics
        self._clock = clock
        self.health = health
        self.on_event: Callable[[Event], None] = self._store
        self.listeners: list[Callable[[Event], None]] = []
        """Who else wants to hear of events."""
        self.deciders: list[Callable[[str], None]] = []
        """Who wants to hear that somebody has decided something about an alarm of a pipeline."""
        self.docket = Docket(
            config.incidents, gateway=config.gateway.id, boot=boot, config_hash=hash_of(config), health=health
        )
        self.archive = _archive(config, self.docket, clock, health, metrics) if ring_rows is None else None
        self._builder = Builder(
            docket=self.docket, boot=boot, clock=clock, health=health, metrics=metrics, outbox=outbox,
            on_rows=self._wake,
            sources=sources, sinks=sinks, models=models, ring_rows=ring_rows, history=history, batch=batch,
            backlog=backlog,
        )  # fmt: skip
        built = self._builder.nodes(config)
        self.nodes = built.nodes
        for name, detector in built.detectors.items():
            self.pipelines[name].succession.offer(detector)
        self._tell_missing(built.missing)
        self.worker = Worker("inference")
        self.scoring = Scoring(self.pipelines.values(), self.worker, health=health, on_event=self.tell)
        self.timekeeping = Timekeeping(outbox, gateway=config.gateway.id, clock=clock, tell=self.tell)
        self.consumers = Consumers(
            outbox, gateway=config.gateway.id, clock=clock, metrics=metrics,
            ttl=config.outbox.consumer_ttl, tell=self.tell,
            declared_only=config.outbox.consumers == "declared",
            declared={name: Declared.of(each) for name, each in config.consumers.items()},
        )  # fmt: skip
        self.desk = ModelDesk(
            config=lambda: self.config,
            pipelines=lambda: self.pipelines,
            on_event=self.tell,
            clock=clock,
            health=health,
        )
        profile = PROFILES[config.profile]
        _coalesce(self.nodes, profile)
        self.ticker = Ticker(clock, period=profile.tick_ns, calls=self._beats(self.nodes))

    @property
    def config(self) -> Config:
        """What was built."""
        return self.nodes.config

    @property
    def ingests(self) -> Mapping[str, Ingest]:
        """The sources with their rings, by name."""
        return self.nodes.ingests

    @property
    def pipelines(self) -> Mapping[str, Pipeline]:
        """The pipelines, by name."""
        return self.nodes.pipelines

    @property
    def learnings(self) -> Mapping[str, Learning]:
        """What learns, by pipeline."""
        return self.nodes.learnings

    @property
    def delivers(self) -> Mapping[str, Deliver]:
        """What serves each sink, by name."""
        return self.nodes.delivers

    @property
    def telemetries(self) -> Mapping[str, Telemetry]:
        """What makes telemetry, by name."""
        return self.nodes.telemetries

    @property
    def summary(self) -> str:
        """What runs, in a few words for systemd."""
        return f"{len(self.ingests)} sources, {len(self.pipelines)} pipelines, {len(self.delivers)} sinks"

    def services(self) -> dict[str, Run]:
        """What the supervisor shall run, by name; what consumes comes before what produces."""
        nodes = self.nodes
        return {
            **_delivering(nodes),
            "clock": self.timekeeping.run,
            **_telemetry(nodes),
            "scoring": self.scoring.run,
            "models": self.desk.run,
            "consumers": self.consumers.run,
            **_learning(nodes),
            **({} if self.archive is None else {"archive": self.archive.run}),
            "ticker": self.ticker.run,
            **_ingesting(nodes),
        }

    @property
    def delivering(self) -> frozenset[str]:
        """The names of the services that carry records out."""
        return frozenset(_delivering(self.nodes))

    async def forget_removed_sinks(self, before: Iterable[str] = ()) -> None:
        """Keep nothing more for sinks of an earlier configuration: nobody would ever fetch it.

        Those that were there `before` are meant too, even if the outbox does not know of them yet.
        """
        for name in (self.outbox.sinks | set(before)) - self.delivers.keys():
            if name.startswith(PREFIX):
                continue  # it has a time of its own, see dxad.pulling
            log.warning("sink %s is no longer configured: what waited for it alone is dropped", name)
            await self.outbox.unsubscribe(name)

    def interrupt(self) -> None:
        """All services have ended: close the incidents that are open, while the outbox still takes events."""
        for pipeline in self.pipelines.values():
            for event in pipeline.interrupt():
                self.tell(event)
            if self.archive is not None:  # now: the docket holds the rows of a few incidents only
                self.archive.store()
        for event in self.docket.flush():
            self.tell(event)

    async def act(self, alarm: str, action: Action, *, until: int | None = None) -> None:
        """Do to an alarm what somebody has decided, and tell what comes of it.

        Raises:
            ConfigError: there is no such alarm, or it is in no state for it.
        """
        pipeline = self.pipelines.get(alarm.partition(".")[0])
        if pipeline is None:
            raise ConfigError(f"no alarm {alarm!r}")
        for event in await self.worker.run(partial(pipeline.watch.act, alarm, action, until=until)):
            self.tell(event)
        for listen in self.deciders:
            listen(pipeline.name)

    def close(self) -> None:
        """Let go of threads and models, once the services have stopped."""
        self.worker.close()
        for pipeline in self.pipelines.values():
            pipeline.succession.close()

    # -- another configuration ----------------------------------------------------------------------------

    def prepare(self, config: Config) -> Prepared:
        """Build what `config` needs and is not there yet; what runs is not touched.

        It may run in another thread, while nothing else is prepared or applied.

        Raises:
            ConfigError: it cannot take the place of what runs, with every reason that is known.
        """
        changes = diff(self.config, config)
        if changes.restart:
            text = "cannot change while dxad runs; restart it"
            raise ConfigError(problems=[Problem("config", key, text) for key in changes.restart])
        return Prepared(changes, self._builder.nodes(config, old=self.nodes, changes=changes))

    async def apply(
        self, prepared: Prepared, supervisor: Supervisor, *, saved: Mapping[str, Document] | None = None
    ) -> None:
        """Let what was prepared take over; whatever is equal goes on as the same objects.

        Whatever is raised here: what was stopped has been started again, and nothing is different.

        Args:
            prepared: made for the nodes that run now.
            supervisor: runs the services.
            saved: by pipeline that is new, the state of one of the same name that ran before.
        """
        old, built = self.nodes, prepared.built
        before, after = _swappable(old), _swappable(built.nodes)
        stopping = [name for name, run in before.items() if after.get(name) != run]
        starting = [name for name, run in after.items() if before.get(name) != run]
        async with AsyncExitStack() as undo:
            undo.callback(prepared.discard)
            undo.push_async_callback(_run_again, supervisor, {name: before[name] for name in stopping})
            await supervisor.stop(*reversed(stopping))
            async with self.scoring.between_batches():
                await self.scoring.finish(_gone(old.pipelines, built.nodes.pipelines))
                for name in _gone_names(old.telemetries, built.nodes.telemetries):
                    old.telemetries[name].finish()  # and what was scored just now
                told = await self._hand_over(built, saved or {})
                undo.push_async_callback(_stop_again, supervisor, {name: after[name] for name in starting})
                for name in starting:
                    supervisor.start(name, after[name])
                undo.pop_all()  # from here on nothing waits, and nothing can fail
                told += self._swap(prepared)
        for event in told:
            self.tell(event)
        await self._tidy_up(old)

    async def _hand_over(self, built: Built, saved: Mapping[str, Document]) -> list[Event]:
        """Let new pipelines and new detectors begin with what those in their place have known.

        Returns what is to be told once they run.
        """
        events: list[Event] = []
        for name, new in built.nodes.pipelines.items():
            old, detector = self.pipelines.get(name), built.detectors.get(name)
            if old is new and detector is None:
                continue
            state = saved.get(name, {}) if old is None else await self.worker.run(old.state)
            refuse = partial(log.info, "%s: what was learned before is not taken up: %s", name)
            if new is not old:
                if detector is not None:
                    new.succession.offer(detector)
                if old is not None:
                    new.follow(old)
                events += new.restore(state, refuse=refuse)
            elif detector is not None:
                try:
                    detector.restore(state.get("model", {}))
                except ModelError as error:
                    refuse(error)
        return events

    def _swap(self, prepared: Prepared) -> list[Event]:
        """Between two batches, all at once; returns what is to be told."""
        events: list[Event] = []
        old, built, changes = self.nodes, prepared.built, prepared.changes
        self.nodes = nodes = built.nodes
        self.docket.adjust(nodes.config.incidents, hash_of(nodes.config))
        if self.archive is not None:
            self.archive.adjust(nodes.config.incidents)
        for name in _gone_names(old.ingests, nodes.ingests):
            self.health.dismiss("source", name)
        for name in _gone_names(old.pipelines, nodes.pipelines):
            self.health.dismiss("pipeline", name)
            self.health.dismiss("model", name)
        for name, pipeline in nodes.pipelines.items():
            if pipeline is old.pipelines.get(name) and changes.fate("pipelines", name) == "adjusted":
                events += pipeline.adjust(nodes.config.pipelines[name])
                if name in built.detectors:
                    pipeline.succession.offer(built.detectors[name])
                    self.health.clear("model.missing", name)
        self._tell_missing(built.missing)
        for learning in nodes.learnings.values():
            learning.allow(built.spare_bytes)
        profile = PROFILES[nodes.config.profile]
        _coalesce(nodes, profile)
        self.scoring.replace(nodes.pipelines.values())
        self.ticker.adjust(period=profile.tick_ns, calls=self._beats(nodes))
        outbox = nodes.config.outbox
        self.consumers.adjust(outbox, nodes.config.consumers)
        self.outbox.adjust(
            max_bytes=outbox.max_size, commit_window_s=profile.commit_window_s, limits=Limits.of(outbox)
        )
        return events

    async def _tidy_up(self, old: Nodes) -> None:
        """Close what pipelines that are gone have left open, unless those in their place go on with it."""
        for pipeline in _gone(old.pipelines, self.pipelines):
            new = self.pipelines.get(pipeline.name)
            goes_on = set() if new is None else {each["id"] for each in new.snapshot()["incidents"]}
            for event in await self.worker.run(pipeline.interrupt):  # where the docket is at home
                if event.subject not in goes_on:
                    self.tell(event)
            if self.archive is not None and self.docket.windows:
                await asyncio.to_thread(self.archive.store)
            await self.worker.run(pipeline.succession.close)
            await self.desk.follow(pipeline)
        await self.forget_removed_sinks(old.delivers)
        forget_gone(self._metrics, old, self.nodes)

    # -- events -------------------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        """Something has happened."""
        self.on_event(event)
        for listen in self.listeners:
            listen(event)

    def _store(self, event: Event) -> None:
        self.store(event)

    def store(self, event: Event) -> asyncio.Future[int]:
        """Hand an event to the outbox, and to nobody else; it says so in the log once it is durable.

        Returns:
            What `Outbox.append` does.
        """
        told = Told(self.outbox.boot.id, self._clock.synchronised)
        stored = self.outbox.append(to_record(event, told), replaces=event.replaces)
        stored.add_done_callback(partial(_log_stored, event))
        return stored

    def _tell_missing(self, missing: Mapping[str, str]) -> None:
        for name, why in missing.items():
            self.health.raise_condition("model.missing", name, why)

    def _wake(self) -> None:
        self.scoring.wake()

    def _beats(self, nodes: Nodes) -> list[Callable[[int], None]]:
        return [*(each.tick for each in nodes.ingests.values()), self.scoring.tick, self.health.tick]


def _delivering(nodes: Nodes) -> dict[str, Run]:
    return {f"deliver.{name}": each.run for name, each in nodes.delivers.items()}


def _learning(nodes: Nodes) -> dict[str, Run]:
    return {f"learning.{name}": each.run for name, each in nodes.learnings.items()}


def _telemetry(nodes: Nodes) -> dict[str, Run]:
    return {f"telemetry.{name}": each.run for name, each in nodes.telemetries.items()}


def _ingesting(nodes: Nodes) -> dict[str, Run]:
    return {f"ingest.{name}": each.run for name, each in nodes.ingests.items()}


def _swappable(nodes: Nodes) -> dict[str, Run]:
    """The services of the nodes; methods of the same object are equal."""
    return {**_delivering(nodes), **_learning(nodes), **_telemetry(nodes), **_ingesting(nodes)}


def _gone_names(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """The names of what is there no more, or is another object."""
    return [name for name, each in old.items() if new.get(name) is not each]


def _gone(old: Mapping[str, Pipeline], new: Mapping[str, Pipeline]) -> list[Pipeline]:
    return [old[name] for name in _gone_names(old, new)]


async def _run_again(supervisor: Supervisor, services: Mapping[str, Run]) -> None:
    """A swap has failed: what was stopped for it goes on."""
    for name, run in services.items():
        if name not in supervisor.names:
            supervisor.start(name, run)


async def _stop_again(supervisor: Supervisor, services: Mapping[str, Run]) -> None:
    """A swap has failed: what was started for it ends."""
    await supervisor.stop(*services)


def _archive(config: Config, docket: Docket, clock: Clock, health: Health, metrics: Metrics) -> Archive:
    section = config.incidents
    folder = config.state_dir / "evidence"
    evidence = Evidence(folder, files=section.evidence_files, size=section.evidence_size)
    return Archive(docket, evidence, clock=clock, health=health, metrics=metrics)


def _coalesce(nodes: Nodes, profile: Profile) -> None:
    for ingest in nodes.ingests.values():
        if isinstance(ingest.source, Coalescing):
            ingest.source.coalesce_s, ingest.source.patience_s = profile.coalesce_s, profile.patience_s


def hash_of(config: Config) -> str:
    """What tells how pipelines are watched here, whatever feeds them and wherever files are.

    The model is left out, since incidents name its version.
    """
    without = {"pipelines": {"__all__": {"model"}}}
    parts = config.model_dump_json(include={"pipelines", "incidents"}, exclude=without, serialize_as_any=True)
    return identity(parts)[:16]


def _log_stored(event: Event, stored: Any) -> None:
    if stored.cancelled():
        log.error("%s %s: not stored, the outbox was closed", event.type, event.subject)
    elif stored.exception() is not None:
        log.error("%s %s: not stored: %s", event.type, event.subject, stored.exception())
    else:
        level = logging.DEBUG if event.replaces else logging.INFO
        log.log(level, "%s %s: stored as event %s", event.type, event.subject, event.id)
