"""The running system as others see it: one face for the control socket, the CLI and the DXA API."""

import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from dxad.alarmsection import Action
from dxad.assembly import Assembly, memory
from dxad.config import Config
from dxad.errors import ConfigError
from dxad.excerpt import excerpt
from dxad.gatewayevents import GatewayEvents
from dxad.outboxdesk import OutboxDesk
from dxad.query import answer
from dxad.reloading import Reloading
from dxad.ring.ringbuffer import RingBuffer
from dxad.runtime.clock import Clock, boot_id
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics, Sample, prometheus
from dxad.types import NS_PER_S, Document

__all__ = ["Gateway"]

ModelVerb = Literal["install", "shadow", "promote", "rollback", "dismiss"]


class Gateway:
    """Answers from snapshots; it changes nothing but by `learn`, `act` and `reload`."""

    def __init__(
        self,
        assembly: Assembly,
        *,
        clock: Clock,
        health: Health,
        metrics: Metrics,
        config_path: Path | None = None,
    ) -> None:
        self.state: Literal["starting", "running", "stopping"] = "starting"
        self.reloading: Reloading | None = None
        """Takes up another configuration, while the daemon runs."""
        self.events: GatewayEvents | None = None
        """Tells of the gateway itself, while the daemon runs."""
        self._assembly = assembly
        self._clock = clock
        self._health = health
        self._metrics = metrics
        metrics.gauges = self._gauges
        self._config_path = config_path
        self.outbox = OutboxDesk(assembly.outbox, clock)
        """Looks into the outbox, and offers again."""
        self.consumers = assembly.consumers
        """Lease events."""
        self._since = clock.now()
        self._measured: tuple[Config | None, int] = (None, 0)

    @property
    def uptime_s(self) -> float:
        """Seconds since it was built."""
        return (self._clock.now() - self._since) / NS_PER_S

    def status(self) -> Document:
        """Everything there is to see, in one document."""
        config = self._assembly.config
        return {
            "gateway": config.gateway.id,
            "version": version("dxad"),
            "pid": os.getpid(),
            "state": self.state,
            "uptime_s": round(self.uptime_s, 1),
            "boot": self._assembly.outbox.boot.id,
            "clock_ok": self._clock.synchronised,
            "heartbeat": None if self.events is None else self.events.snapshot(),
            "profile": config.profile,
            "config": None if self._config_path is None else str(self._config_path),
            "conditions": self._health.snapshot(),
            "sources": {name: each.snapshot() for name, each in self._assembly.ingests.items()},
            "pipelines": {name: self.pipeline_status(name) for name in self._assembly.pipelines},
            "sinks": {name: each.snapshot() for name, each in self._assembly.delivers.items()},
            "telemetry": {name: each.snapshot() for name, each in self._assembly.telemetries.items()},
            "outbox": self._assembly.outbox.snapshot(),
            "memory": {"resident_bytes": _resident_bytes(), "buffers_bytes": self._buffers()},
        }

    def pipeline_status(self, name: str) -> Document:
        """One pipeline's part of the status."""
        learning = self._assembly.learnings.get(name)
        return {
            **self._assembly.pipelines[name].snapshot(),
            "learning": None if learning is None else learning.snapshot(),
        }

    def pipelines(self) -> Sequence[str]:
        """The names of all pipelines."""
        return tuple(self._assembly.pipelines)

    def sources(self) -> Sequence[str]:
        """The names of all sources."""
        return tuple(self._assembly.ingests)

    def source_rows(self, name: str, start: int | None, limit: int) -> Document:
        """Rows of a source's ring from slot `start` on, see `dxad.excerpt`."""
        return self._excerpt(self._assembly.ingests[name].ring, start, limit)

    def pipeline_rows(self, name: str, start: int | None, limit: int) -> Document:
        """Rows of a pipeline, after its transforms, likewise."""
        return self._excerpt(self._assembly.pipelines[name].rows, start, limit)

    def _excerpt(self, ring: RingBuffer, start: int | None, limit: int) -> Document:
        return excerpt(ring, start=start, limit=limit, clock=self._clock, boot=boot_id())

    async def query(self, pipeline: str, request: Document) -> Document:
        """Answer a DXA request, see `dxad.query`."""
        return await answer(
            self._assembly.pipelines[pipeline],
            request,
            worker=self._assembly.worker,
            clock=self._clock,
            status=self.pipeline_status(pipeline),
        )

    def learn(self, pipeline: str, span_s: float | None) -> Document:
        """Learn anew what is normal, from the rows that come now.

        Raises:
            ConfigError: this pipeline is not made for it, or the span needs more memory than there is.
        """
        learning = self._assembly.learnings.get(pipeline)
        if learning is None:
            raise ConfigError(
                f"pipeline {pipeline!r} has no [pipelines.{pipeline}.learn] in its configuration"
            )
        rows = learning.ask(None if span_s is None else int(span_s * NS_PER_S))
        return {"pipeline": pipeline, "of_rows": rows}

    async def models(self, pipeline: str) -> Document:
        """All versions of a pipeline's model, and which of them does what."""
        return await self._assembly.desk.models(pipeline)

    async def model(self, pipeline: str, verb: ModelVerb, *, path: str = "", version: str = "") -> Document:
        """Install or shadow the bundle in the folder `path`, promote a shadow, roll back, or dismiss.

        Raises:
            ModelError: it is refused; nothing has changed.
            ConfigError: this pipeline's model has no versions.
        """
        desk = self._assembly.desk
        match verb:
            case "install" | "shadow":
                return await desk.install(pipeline, Path(path), shadow=verb == "shadow")
            case "promote":
                return await desk.promote(pipeline)
            case "rollback":
                return await desk.roll_back(pipeline, version or None)
            case "dismiss":
                return await desk.dismiss(pipeline)

    def alarms(self) -> Sequence[Document]:
        """Every alarm of every pipeline."""
        return [each for pipeline in self._assembly.pipelines.values() for each in pipeline.watch.alarms()]

    async def act(self, alarm: str, action: Action, for_s: float | None = None) -> Document:
        """Acknowledge an alarm, shelve it for `for_s` seconds, and so on; returns it as it is then.

        Raises:
            ConfigError: there is no such alarm, or it is in no state for it.
        """
        until = None if for_s is None else self._clock.now() + int(for_s * NS_PER_S)
        await self._assembly.act(alarm, action, until=until)
        return next(each for each in self.alarms() if each["id"] == alarm)

    def incidents(self) -> Sequence[Document]:
        """The incidents that are open, and the last of those that are over, the newest first."""
        pipelines = self._assembly.pipelines.values()
        opened = [each for pipeline in pipelines for each in pipeline.watch.open_incidents()]
        ids = {each["incident"] for each in opened}
        closed = [each for each in list(self._assembly.docket.closed) if each["incident"] not in ids]
        return [
            {**each, "state": state}
            for state, found in (("open", opened), ("closed", closed))
            for each in sorted(found, key=lambda each: each["onset_utc_ns"], reverse=True)
        ]

    async def window(self, incident: str, rows: int | None) -> Document | str | None:
        """The rows around an incident: as JSON with `rows` at most, or all as CSV; None without any."""
        archive = self._assembly.archive
        if archive is None:
            return None
        return await (archive.csv(incident) if rows is None else archive.document(incident, rows))

    async def reload(self, *, dry_run: bool) -> Document:
        """Take up the configuration as it is on disk now, or only say what would change.

        Raises:
            ConfigError: it is refused, with every mistake that is known.
        """
        if self.reloading is None:
            raise ConfigError(f"the gateway is {self.state}, and has nothing to reload")
        return await self.reloading.reload(dry_run=dry_run)

    def _buffers(self) -> int:
        """The bytes of all buffers; in process, nothing is promised."""
        config = self._assembly.config
        if self._config_path is not None and self._measured[0] is not config:
            self._measured = (config, sum(memory(config).values()))
        return self._measured[1]

    def metrics(self) -> str:
        """All counters and gauges as Prometheus text."""
        return prometheus(self._metrics.everything())

    def _gauges(self) -> Iterable[Sample]:
        for name, ingest in self._assembly.ingests.items():
            label = (("source", name),)
            yield Sample("dxad_source_up", float(ingest.connected), label)
            yield Sample("dxad_samples_overflowed_total", ingest.overflowed, label)
            yield Sample("dxad_rows_overwritten_total", ingest.ring.overwritten, label)
            yield from _of_devices(name, ingest.devices)
            if ingest.age_s is not None:
                yield Sample("dxad_source_age_seconds", ingest.age_s, label)
        for name, pipeline in self._assembly.pipelines.items():
            label = (("pipeline", name),)
            snapshot = pipeline.snapshot()
            if snapshot["score"] is not None:
                yield Sample("dxad_pipeline_score", snapshot["score"], label)
            if snapshot["limit"] is not None:
                yield Sample("dxad_pipeline_limit", snapshot["limit"], label)
            yield Sample("dxad_incidents_open", len(snapshot["incidents"]), label)
            yield Sample("dxad_alarms_active", snapshot["alarms"]["active"], label)
            yield Sample("dxad_alarms_shelved", snapshot["alarms"]["shelved"], label)
        for name, deliver in self._assembly.delivers.items():
            yield Sample("dxad_sink_up", float(deliver.up), (("sink", name),))
        outbox = self._assembly.outbox.snapshot()
        for name, sink in outbox["sinks"].items():
            yield Sample("dxad_outbox_pending", sink["pending"], (("sink", name),))
        yield Sample("dxad_outbox_bytes", outbox["bytes"])
        if outbox["written_per_day"] is not None:
            yield Sample("dxad_outbox_written_bytes_per_day", outbox["written_per_day"])
        for condition in self._health.active:
            yield Sample("dxad_conditions", 1, (("code", condition.code), ("subject", condition.subject)))
        yield Sample("dxad_uptime_seconds", self.uptime_s)
        yield Sample("dxad_resident_bytes", _resident_bytes())


def _of_devices(source: str, devices: Mapping[str, Document]) -> Iterable[Sample]:
    for device, counts in devices.items():
        label = (("source", source), ("device", device))
        for fate, count in counts.items():
            if fate != "rejected":
                yield Sample("dxad_device_samples_total", count, (*label, ("fate", fate)))
                continue
            for reason, n in count.items():
                why = (("fate", fate), ("reason", reason))
                yield Sample("dxad_device_samples_total", n, (*label, *why))


def _resident_bytes() -> int:
    """Source: `man 5 proc_pid_statm`, the second field, in pages."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
