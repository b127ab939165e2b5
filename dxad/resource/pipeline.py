"""Nodes are added; `initialize` turns them into a Config, which the daemon's own assembly runs."""

import asyncio
import os
import re
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from pydantic import ValidationError

from dxad.assembly import PROFILES, Assembly
from dxad.config import Config, LearnSection
from dxad.errors import ConfigError, Problem, ResourceUnavailableError
from dxad.gateway import Gateway
from dxad.learning import Learning
from dxad.models.tflite import TFLite
from dxad.outbox import Outbox
from dxad.recording import open_recording
from dxad.resource.discover import discovered
from dxad.resource.nodes import AnomalyDetector, IoTResource, ReasoningInput, TransformResource
from dxad.resource.remote import RemotePipeline
from dxad.resource.state import (
    ExecutionNodeStatus,
    PipelineConfig,
    PipelineContext,
    PipelineState,
    ResourceResponse,
)
from dxad.resource.taps import Taps
from dxad.runtime.clock import Clock, SystemClock, boot_id
from dxad.runtime.health import Health
from dxad.runtime.metrics import Metrics
from dxad.runtime.supervisor import Supervisor
from dxad.types import Document, Model

__all__ = ["PipelineResource"]

_REQUEST_KEYS: Final = frozenset({"execute", "config", "data", "options"})
_START_S: Final = 5.0
_OUTBOX_BYTES: Final = 64 * 2**20
_BY_MESSAGE_ALARM: Final = {"on_delay": "1ns", "off_delay": "10ns"}
"""On a grid that counts messages a nanosecond is a row: raised at once, cleared after ten good ones."""


class _SourceNode:
    """A source as it was added: its resource, and what the pipeline is to make of its fields."""

    def __init__(
        self,
        resource: IoTResource,
        buffer_size: int,
        input_schema: Mapping[str, str] | None,
        output_schema: Mapping[str, str] | None,
    ) -> None:
        if input_schema is not None and output_schema is not None and len(input_schema) != len(output_schema):
            raise ConfigError(
                f"source {resource.name!r}: input_schema has {len(input_schema)} fields, "
                f"output_schema {len(output_schema)}; they are paired in order"
            )
        self.resource = resource
        self.buffer_size = buffer_size
        self.fields = list(input_schema) if input_schema is not None else None
        self.names = list(output_schema) if output_schema is not None else self.fields
        for name, kind in (*(input_schema or {}).items(), *(output_schema or {}).items()):
            if kind not in ("float", "int"):
                raise ConfigError(
                    f"source {resource.name!r}: field {name!r} is of type {kind!r}; float or int"
                )

    @property
    def must_discover(self) -> bool:
        """Whether its channels are only known once a message has come."""
        options, endpoint = self.resource.options, self.resource.endpoint or ""
        return self.fields is None and "channels" not in options and endpoint.startswith("mqtt")

    async def document(self, clock: Clock) -> Document:
        """Its configuration, with all its channels; waits for a first message where none are given."""
        document = self.resource.document()
        if document.keys() & {"channels", "map"} or document["type"] == "serial":
            return document
        fields = self.fields
        if fields is None and document["type"] == "replay":
            fields = list(open_recording(Path(document["path"])).columns)
        if self.must_discover:
            fields = await discovered(self.resource.name, document, clock)
        if not fields:
            raise ConfigError(f"source {self.resource.name!r}: give it an input_schema or channels")
        names = self.names or fields
        if document["type"] == "modbus":
            names = [re.sub(r"\W+", "_", name) for name in names]
            channels = {name: {"register": field} for name, field in zip(names, fields, strict=True)}
        else:
            key = "column" if document["type"] == "replay" else "path"
            channels = {name: {key: field} for name, field in zip(names, fields, strict=True)}
        return {**document, "channels": channels}


class PipelineResource:
    """A pipeline of the DXA Pipeline System, in this process.

    Add nodes, then `initialize`, `query`, `cleanup`; or use it as an asynchronous context manager. Everything
    it writes goes to `state_dir`; without one, into memory and a temporary folder.
    """

    def __init__(
        self,
        name: str | PipelineConfig,
        config: PipelineConfig | None = None,
        *,
        state_dir: str | Path | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.config = config or (name if isinstance(name, PipelineConfig) else PipelineConfig(name))
        self.name = self.config.name
        self.state = PipelineState()
        self._state_dir = None if state_dir is None else Path(state_dir)
        self._clock = clock or SystemClock()
        self._sources: list[_SourceNode] = []
        self._transforms: list[TransformResource] = []
        self._detector: AnomalyDetector | None = None
        self._batch_size = self.config.batch_size
        self._backlog = self.config.buffer_size
        self._model_inputs: tuple[str, ...] = ()
        self._score_name: str | None = None
        self._sinks: list[ReasoningInput] = []
        self._running: AsyncExitStack | None = None
        self._starting: asyncio.Task[None] | None = None
        self._assembly: Assembly | None = None
        self._gateway: Gateway | None = None

    @classmethod
    def connect(cls, name: str, url: str = "unix:///run/dxad/control.sock") -> RemotePipeline:
        """The pipeline `name` of a running daemon: it answers the same queries."""
        return RemotePipeline(name, url)

    def add_source(
        self,
        resource: IoTResource,
        *,
        buffer_size: int | None = None,
        batch_size: int | None = None,
        input_schema: Mapping[str, str] | None = None,
        output_schema: Mapping[str, str] | None = None,
    ) -> Self:
        """Add a sensor.

        Args:
            resource: the sensor.
            buffer_size: rows its ring holds.
            batch_size: rows taken at once.
            input_schema: the fields that are read; without it, the numeric fields of the first message.
            output_schema: the channels they become, paired in order.

        Raises:
            ConfigError: the schemas do not pair, or the pipeline runs already.
        """
        self._still_open()
        self._batch_size = min(self._batch_size, batch_size or self.config.batch_size)
        size = buffer_size or self.config.buffer_size
        self._sources.append(_SourceNode(resource, size, input_schema, output_schema))
        return self

    def add_transform(self, resource: TransformResource) -> Self:
        """Add a transform; they are applied in the order they were added."""
        self._still_open()
        self._transforms.append(resource)
        return self

    def add_model(
        self,
        resource: AnomalyDetector,
        *,
        buffer_size: int | None = None,
        batch_size: int | None = None,
        input_schema: Mapping[str, str] | None = None,
        output_schema: Mapping[str, str] | None = None,
    ) -> Self:
        """Set the model.

        Args:
            resource: the model.
            buffer_size: rows that may wait for it; the oldest beyond that are skipped and counted.
            batch_size: rows it is given at once.
            input_schema: channels that must be among those above it, by their full or short name.
            output_schema: one field, which names the score in the answers to queries.

        Raises:
            ConfigError: there is a model already, or more than one output.
        """
        self._still_open()
        if self._detector is not None:
            raise ConfigError(f"pipeline {self.name!r} has a model already: {self._detector.name!r}")
        if output_schema is not None and len(output_schema) != 1:
            raise ConfigError(f"model {resource.name!r}: output_schema names the score, so it has one field")
        self._detector = resource
        self._backlog = buffer_size or self.config.buffer_size
        self._batch_size = min(self._batch_size, batch_size or self.config.batch_size)
        self._model_inputs = tuple(input_schema or ())
        self._score_name = next(iter(output_schema or ()), None)
        return self

    def add_sink(self, resource: ReasoningInput) -> Self:
        """Add a receiver of incidents."""
        self._still_open()
        self._sinks.append(resource)
        return self

    def _still_open(self) -> None:
        if self._running is not None:
            raise ConfigError(f"pipeline {self.name!r} is initialised; add its nodes before that")

    async def initialize(self) -> None:
        """Start the nodes. Returns when they run; a source whose channels are not known yet starts later.

        Raises:
            ConfigError: the nodes do not fit together.
            ModelRefusedError: the model is not one that dxad opens.
        """
        self._still_open()
        if not self._sources:
            raise ConfigError(f"pipeline {self.name!r} has no source")
        detector = self._detector or AnomalyDetector("baseline")
        self._detector = detector
        model = await asyncio.to_thread(detector.model)  # a bundle is tried in a process of its own first
        self.state.status = ExecutionNodeStatus.PENDING
        self._running = AsyncExitStack()
        starting = asyncio.create_task(self._start(model), name=f"{self.name}.start")
        if any(each.must_discover for each in self._sources):
            self._starting = starting
            return
        try:
            await starting
        except BaseException:
            await self.cleanup()
            raise

    async def _start(self, model: Model | None) -> None:
        """Build and run everything, once all channels are known."""
        assert self._running is not None
        try:
            config = await self._config()
            await self._run(config, model, self._running)
        except ConfigError as error:
            self.state.status = ExecutionNodeStatus.FAILED
            self.state.errors.append(str(error))
            raise
        self.state.status = ExecutionNodeStatus.IN_PROGRESS

    async def _config(self) -> Config:
        """The configuration that these nodes are."""
        by_message = all("period" not in each.resource.options for each in self._sources)
        if by_message and len(self._sources) > 1:
            raise ConfigError(
                f"pipeline {self.name!r} joins {len(self._sources)} sources: give each a period, such as "
                'IoTResource(..., period="100ms")'
            )
        documents = [await each.document(self._clock) for each in self._sources]
        folder = self._state_dir
        if folder is None:
            assert self._running is not None
            temporary = self._running.enter_context(tempfile.TemporaryDirectory(prefix="dxad-"))
            folder = Path(temporary)
        document = {
            "gateway": {"id": re.sub(r"[^A-Za-z0-9_-]", "-", self.name)},
            "profile": "low_latency",
            "state_dir": str(folder),
            "sources": {
                each.resource.name: document for each, document in zip(self._sources, documents, strict=True)
            },
            "pipelines": {
                self.name: {
                    "channels": ["*.*"],
                    "transforms": [each.document() for each in self._transforms],
                    "model": {"type": "zscore"},
                    "alarm": _BY_MESSAGE_ALARM if by_message else {},
                }
            },
            "sinks": {each.name: each.document() for each in self._sinks},
        }
        try:
            return Config.model_validate(document)
        except ValidationError as error:
            problems = [
                Problem(self.name, ".".join(map(str, each["loc"])), each["msg"]) for each in error.errors()
            ]
            raise ConfigError(problems=problems) from error

    async def _run(self, config: Config, model: Model | None, stack: AsyncExitStack) -> None:
        health, metrics = Health(self._clock), Metrics()
        outbox = await stack.enter_async_context(
            Outbox(
                None if self._state_dir is None else config.state_dir / config.outbox.path,
                max_bytes=_OUTBOX_BYTES,
                commit_window_s=PROFILES[config.profile].commit_window_s,
                health=health,
                metrics=metrics,
                clock=self._clock,
            )
        )
        assembly = Assembly(
            config,
            # Messages are counted anew in every process: the same number must not make the same id.
            boot=f"{boot_id()}-{os.getpid()}-{self._clock.now()}",
            clock=self._clock,
            health=health,
            metrics=metrics,
            outbox=outbox,
            sinks={each.name: each.queue for each in self._sinks if each.queue is not None},
            models={} if model is None else {self.name: model},
            ring_rows={each.resource.name: each.buffer_size for each in self._sources},
            history=self.config.buffer_size,
            batch=self._batch_size,
            backlog=self._backlog,
        )
        stack.callback(assembly.close)
        pipeline = assembly.pipelines[self.name]
        known = {channel.id for channel in pipeline.rows.channels}
        known |= {name.partition(".")[2] for name in known}
        for name in self._model_inputs:
            if name not in known:
                raise ConfigError(f"the model wants {name!r}, which is none of {', '.join(sorted(known))}")
        learning = Learning(
            pipeline,
            LearnSection(start="on_demand"),
            config.state_dir / "models" / self.name,
            load=lambda: TFLite.at(config.state_dir / "models" / self.name),
            clock=self._clock,
            health=health,
        )
        assert self._detector is not None
        self._detector.bind(learning.from_history)
        for each in self._sources:
            each.resource.bind(assembly.ingests[each.resource.name].source)
        supervisor = await stack.enter_async_context(Supervisor(self._clock, health))
        for name, service in assembly.services().items():
            supervisor.start(name, service)
        self._assembly = assembly
        self._gateway = Gateway(assembly, clock=self._clock, health=health, metrics=metrics)
        self._gateway.state = "running"

    async def query(self, request: Document | None = None) -> ResourceResponse:
        """Answer one of the requests that `dxad.query` lists.

        Raises:
            ResourceUnavailableError: before `initialize()`, or after `cleanup()`.
        """
        if self._running is None:
            raise ResourceUnavailableError(f"pipeline {self.name!r}: query before initialize()")
        request = request or {}
        gateway = await self._started(request)
        if gateway is None:
            reason = (
                "; ".join(self.state.errors) or "its source has sent no message to learn its channels from"
            )
            return ResourceResponse(success=False, error=f"pipeline {self.name!r} has not started: {reason}")
        answer = await gateway.query(self.name, dict(request))
        if answer["success"] and self._score_name and "result" in answer["content"]:
            answer["content"]["result"][self._score_name] = answer["content"]["result"]["score"]
        if answer["success"] and not request:
            answer["content"] = {**gateway.status(), **answer["content"], "metadata": self.config.metadata}
            self.state.metrics = answer["content"]
        return ResourceResponse(**answer)

    async def _started(self, request: Document) -> Gateway | None:
        """The running pipeline; an execute waits for it as long as it would for rows."""
        if self._gateway is None and self._starting is not None and request.get("execute"):
            config = request.get("config")
            timeout_s = config.get("timeout_s", _START_S) if isinstance(config, dict) else _START_S
            await asyncio.wait([self._starting], timeout=timeout_s)
        return self._gateway

    async def cleanup(self) -> None:
        """Stop the nodes and let go of everything; safe twice."""
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()
            await asyncio.wait([starting])
            if not starting.cancelled():
                starting.exception()  # it stands in `state.errors`; nobody else will look
        running, self._running = self._running, None
        self._gateway = self._assembly = None
        if running is not None:
            await running.aclose()
            if self.state.status is not ExecutionNodeStatus.FAILED:
                self.state.status = ExecutionNodeStatus.COMPLETED

    async def __aenter__(self) -> Self:
        await self.initialize()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cleanup()

    @property
    def is_available(self) -> bool:
        """Whether queries are answered."""
        return self._running is not None

    def can_handle(self, request: Any) -> bool:
        """Whether `query` knows what to do with this request."""
        return isinstance(request, Mapping) and set(request) <= _REQUEST_KEYS

    @asynccontextmanager
    async def context(self) -> AsyncIterator[PipelineContext]:
        """Look into the running pipeline: its buffers fill until the context is left.

        Raises:
            ResourceUnavailableError: it does not run.
        """
        if self._assembly is None:
            raise ResourceUnavailableError(f"pipeline {self.name!r}: context before it runs")
        async with Taps(self._assembly, self._clock, size=self.config.buffer_size) as taps:
            yield PipelineContext(self.config, self.state, taps.buffers)
