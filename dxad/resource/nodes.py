"""The nodes of an in-process pipeline, by the DXA names."""

import os
import re
import warnings
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import unquote, urlsplit

from dxad import bundle
from dxad.bundle.trial import ensure_tried_now, try_file_now
from dxad.errors import ConfigError, ModelRefusedError, ResourceUnavailableError
from dxad.fields import Secret
from dxad.models.tflite import BareTFLite, TFLite
from dxad.sinks.memory import Config as QueueConfig
from dxad.sinks.memory import Memory as Queue
from dxad.sources.memory import Memory
from dxad.types import Document, Model, Source

__all__ = [
    "AnomalyDetector",
    "IoTResource",
    "ModelResource",
    "ReasoningInput",
    "ReasoningInputResource",
    "TransformResource",
]

_PICKLES: Final = (".pkl", ".pickle", ".joblib")
_KINDS: Final = {
    "mqtt": "mqtt", "tcp": "modbus", "rtu+tcp": "modbus", "rtu": "modbus", "ascii": "modbus",
    "opc.tcp": "opcua", "serial": "serial", "replay": "replay",
}  # fmt: skip
"""By the scheme of an endpoint, the type of its source."""


class IoTResource:
    """A sensor: an endpoint that is read, or, without one, an in-memory source that is pushed into.

    `DXAD_ENDPOINT_<NAME>` in the environment replaces the endpoint, so that the same code runs on a bench.
    """

    def __init__(self, name: str, endpoint: str | None = None, **options: Any) -> None:
        """Name the sensor.

        Args:
            name: its channels are called `name.channel`.
            endpoint: `mqtt://broker[:port][/topic]`, `opc.tcp://host:4840/path`, `serial:///dev/tty...`, or
                for Modbus `tcp://host:502`, `rtu+tcp://host:port`, `rtu:///dev/tty...`, `ascii:///dev/tty...`;
                `replay:///week.csv` is a recording; an MQTT endpoint without a topic subscribes to its name.
            options: further keys of the source's configuration, such as `period="100ms"` or `channels={...}`.
        """
        self.name = name
        self.options = options
        variable = f"DXAD_ENDPOINT_{re.sub(r'[^A-Za-z0-9]', '_', name).upper()}"
        self.endpoint = os.environ.get(variable, endpoint)
        self._memory: Memory | None = None

    def document(self) -> Document:
        """The source's configuration, but for its channels where they are not given.

        Raises:
            ConfigError: the endpoint is of no known kind.
        """
        if self.endpoint is None:
            return {"type": "memory", **self.options}
        url = urlsplit(self.endpoint)
        kind = _KINDS.get(url.scheme)
        if kind is None:
            raise ConfigError(f"endpoint {self.endpoint!r}: the scheme is none of {', '.join(_KINDS)}")
        if kind == "serial":
            return {"type": kind, "port": url.path, **self.options}
        if kind == "replay":
            return {"type": kind, "path": unquote(url.path), **self.options}
        if kind != "mqtt":
            return {"type": kind, "url": self.endpoint, **self.options}
        broker = f"mqtt://{url.netloc}"
        return {"type": kind, "url": broker, "topic": url.path.lstrip("/") or self.name, **self.options}

    def bind(self, source: Source) -> None:
        """The pipeline runs on this source: pushed values go there from now on."""
        self._memory = source if isinstance(source, Memory) else None

    async def push(self, values: Mapping[str, float]) -> None:
        """Hand in one message of an in-memory source; with `overflow="block"`, wait until there is room.

        Raises:
            ResourceUnavailableError: its pipeline is not initialised.
        """
        if self._memory is None:
            raise ResourceUnavailableError(
                f"{self.name}: it has an endpoint, or push came before initialize()"
            )
        await self._memory.room()
        self._memory.push(values)


class TransformResource:
    """One of the daemon's transforms: `TransformResource("smooth", span="1s")`."""

    def __init__(self, kind: str, **options: Any) -> None:
        self.name = kind
        self.options = options

    def document(self) -> Document:
        """The transform's configuration."""
        return {"type": self.name, **self.options}


class _Learner(Protocol):
    async def __call__(self) -> str: ...


class AnomalyDetector:
    """Scores what a pipeline sees: the robust z-score baseline, until it is given a model or learns one."""

    def __init__(self, name: str, model_path: str | Path | None = None) -> None:
        """Use the model bundle at `model_path`, or the untrained baseline without one."""
        self.name = name
        self.model_path = None if model_path is None else Path(model_path)
        self._learn: _Learner | None = None

    def model(self) -> Model | None:
        """The model to begin with; None is the baseline.

        Raises:
            ModelRefusedError: there is none at `model_path`, or it is not one that dxad opens.
        """
        return None if self.model_path is None else _load(self.model_path)

    def bind(self, learn: _Learner) -> None:
        """The pipeline runs: `learn` learns from the rows it remembers."""
        self._learn = learn

    async def learn(self) -> str:
        """Learn what is normal from the rows of the past, and score by it from now on; returns the version.

        Raises:
            ResourceUnavailableError: the pipeline is not initialised.
            ModelError: there is too little to learn from.
        """
        if self._learn is None:
            raise ResourceUnavailableError(f"{self.name}: learn before initialize()")
        return await self._learn()


class ModelResource(AnomalyDetector):
    """The same for a model that exists."""

    def __init__(self, name: str, model_path: str | Path) -> None:
        super().__init__(name, model_path)


def _load(path: Path) -> Model:
    if path.suffix in _PICKLES:
        sibling = next(
            (each for each in (path.with_suffix(""), path.with_suffix(".tflite")) if each.exists()), None
        )
        if sibling is None:
            raise ModelRefusedError(
                f"{path}: a pickle runs whatever code it carries when it is opened, so dxad never opens one; "
                f"export the model to {path.with_suffix('.tflite').name} beside it, or drop model_path and "
                "let the detector learn()"
            )
        warnings.warn(f"{path} is never opened; using {sibling} beside it", UserWarning, stacklevel=2)
        path = sibling
    if path.suffix == ".tflite":
        warnings.warn(
            f"{path} is a bare model: it has no limit, so the first 100 scores are taken as normal",
            UserWarning,
            stacklevel=2,
        )
        return _bare(path)
    ensure_tried_now(path)
    return TFLite.at(path)


def _bare(path: Path) -> BareTFLite:
    """Raises ModelRefusedError: it cannot be read, or did not pass a trial in a process of its own."""
    blob = bundle.read_bare(path)
    trial = try_file_now(path)
    if trial.refused is not None:
        raise ModelRefusedError(trial.refused)
    if trial.contents != bundle.hashed(blob):
        raise ModelRefusedError(f"{path}: changed while it was tried")
    return BareTFLite(blob)


class ReasoningInput:
    """Where incidents go: an `async for` in process, or an HTTP receiver with `url=`."""

    def __init__(
        self,
        name: str,
        url: str | None = None,
        *,
        bearer: Mapping[str, str] | None = None,
        capacity: int = 1000,
    ) -> None:
        """Name the sink.

        Args:
            name: its name.
            url: POST CloudEvents there.
            bearer: a secret by reference, such as `{"env": "TOKEN"}`.
            capacity: events kept for a slow reader in process.
        """
        self.name = name
        self.url = url
        self.queue = None if url else Queue(name, QueueConfig(type="memory", capacity=capacity))
        self._bearer = None if bearer is None else Secret.model_validate(dict(bearer))

    def document(self) -> Document:
        """The sink's configuration."""
        lanes = ["critical", "normal"]
        if self.url is None:
            return {"type": "memory", "lanes": lanes}
        secret = {} if self._bearer is None else {"bearer": self._bearer.model_dump(exclude_none=True)}
        return {"type": "http", "url": self.url, "lanes": lanes, **secret}

    @property
    def dropped(self) -> int:
        """Events that a slow reader lost."""
        return 0 if self.queue is None else self.queue.dropped

    async def __aiter__(self) -> AsyncIterator[Document]:
        """The events as they come, as CloudEvents.

        Raises:
            ResourceUnavailableError: they go to `url`.
        """
        if self.queue is None:
            raise ResourceUnavailableError(f"{self.name}: its events go to {self.url}")
        while True:
            yield await self.queue.next_event()


class ReasoningInputResource(ReasoningInput):
    """The same, by its long name."""
