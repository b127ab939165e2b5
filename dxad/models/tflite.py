"""TensorFlow Lite models, from bundles (see `dxad.bundle`).

Runs on LiteRT where that is installed, else on tflite-runtime; always with one thread, which is the fastest
for nets of this size.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from pydantic import Field

from dxad import bundle
from dxad.errors import ModelError, ModelRefusedError
from dxad.fields import ModelSection
from dxad.plugin import Plugin
from dxad.types import F4, F8, Calibration, Channel, Document, Scores, Windows

__all__ = ["PLUGIN", "BareTFLite", "Config", "TFLite", "verify"]

_BATCHES: Final = (1, 8, 32, 256)
"""Windows per call; a fixed set, because every new size makes the interpreter plan its memory anew."""
_GOLDEN_TOLERANCE: Final = 1e-4


class Config(ModelSection):
    """`{ type = "tflite", path = "models/pump" }`."""

    type: Literal["tflite"]
    path: Path = Field(
        strict=False, description="a bundle, or a shelf of them; relative to the state directory"
    )


class TFLite:
    """Scores windows with the bundle's graph; the squares it also yields are the channels' contributions."""

    def __init__(self, found: bundle.Bundle) -> None:
        self._bundle = found
        self.version = found.version
        self.calibration: Calibration | None = found.manifest.calibration
        self._fill = np.asarray(found.manifest.fill, dtype=np.float32)
        owner = np.asarray(found.manifest.contribution_columns, dtype=np.int64)
        self._by_owner = np.argsort(owner, kind="stable")
        """The outputs, those of one channel side by side."""
        self._owners, self._begins = np.unique(owner[self._by_owner], return_index=True)
        self._columns: list[int] = []
        self._width = 0
        self._graph: _Graph | None = None

    @classmethod
    def at(cls, path: Path) -> "TFLite":
        """The model at a path of a configuration.

        Raises:
            ModelError: there is none, or it is refused.
        """
        folder = bundle.current(path)
        return cls(bundle.read(path if folder is None else folder))

    def load(self, channels: Sequence[Channel], rows: int | None, *, by: int | None = None) -> int:
        """Find the model's channels among these.

        Raises:
            ModelError: one is missing, has another unit, or the windows have another length.
        """
        if by is not None:
            raise ModelError("this model knows no regimes")
        manifest = self._bundle.manifest
        place = {channel.id: (column, channel.unit) for column, channel in enumerate(channels)}
        for name, unit in zip(manifest.channels, manifest.units, strict=True):
            if name not in place:
                raise ModelError(f"the model wants channel {name!r}, which the pipeline does not have")
            if place[name][1] != unit:
                raise ModelError(
                    f"channel {name!r} is in {place[name][1]!r}, the model was made for {unit!r}"
                )
        if rows is not None and rows < manifest.rows:
            raise ModelError(f"the model wants windows of {manifest.rows} rows, the pipeline has {rows}")
        self._columns = [place[name][0] for name in manifest.channels]
        self._width = len(channels)
        self._graph = _Graph(self._bundle.blob)
        if self._graph.inputs != manifest.rows * len(manifest.channels):
            raise ModelError(
                f"the graph takes {self._graph.inputs} numbers, the manifest promises another count"
            )
        return manifest.rows

    def score(self, windows: Windows) -> Scores:
        """Score each window; bad cells stand at the training median and contribute nothing.

        Raises:
            ModelError: not loaded, or the runtime failed.
        """
        if self._graph is None:
            raise ModelError("score before load")
        cells = windows.values[:, -self._bundle.manifest.rows :, :][:, :, self._columns]
        bad = np.isnan(cells)
        values, parts = self._graph.run(
            np.where(bad, self._fill, cells).reshape(len(cells), self._graph.inputs)
        )
        contributions = np.zeros((len(cells), self._width))
        if parts is not None and len(self._owners):
            mine = np.zeros((len(cells), len(self._columns)))
            mine[:, self._owners] = np.add.reduceat(parts[:, self._by_owner], self._begins, axis=1)
            mine[bad.any(axis=1)] = 0.0
            contributions[:, self._columns] = mine
        return Scores(values, contributions)

    def state(self) -> Document:
        """All it knows stands in its bundle."""
        return {}

    def restore(self, state: Document) -> None:
        """There is nothing to take up."""

    def close(self) -> None:
        """Free the interpreter."""
        self._graph = None


class BareTFLite:
    """A `.tflite` file without a manifest: its first output is the score, its first scores are normal."""

    _WARM_UP: Final = 100
    _MARGIN: Final = 1.5

    def __init__(self, path: Path) -> None:
        """Read the file at once.

        Raises:
            ModelRefusedError: it cannot be read.
        """
        try:
            self._blob = path.read_bytes()
        except OSError as error:
            raise ModelRefusedError(f"{path}: {error.strerror}") from error
        self.version = hashlib.sha256(self._blob).hexdigest()[:12]
        self.calibration: Calibration | None = None
        self._graph: _Graph | None = None
        self._first: list[float] = []

    def load(self, channels: Sequence[Channel], rows: int | None, *, by: int | None = None) -> int:
        """Windows of as many rows as the graph's input holds.

        Raises:
            ModelError: that is no whole number of rows, or not what the configuration asks for.
        """
        if by is not None:
            raise ModelError("this model knows no regimes")
        self._graph = _Graph(self._blob)
        wanted, rest = divmod(self._graph.inputs, len(channels))
        if rest or rows not in (None, wanted):
            raise ModelError(
                f"the graph takes {self._graph.inputs} numbers, not rows of {len(channels)} channels"
            )
        return wanted

    def score(self, windows: Windows) -> Scores:
        """Score each window without bad cells; there is no training median that could stand for one."""
        if self._graph is None:
            raise ModelError("score before load")
        whole = ~np.isnan(windows.values).any(axis=(1, 2))
        values = np.full(len(windows), np.nan)
        flat = windows.values[whole].reshape(int(whole.sum()), -1)
        values[whole] = self._graph.run(flat)[0]
        if self.calibration is None:
            self._first += values[whole].tolist()
            if len(self._first) >= self._WARM_UP:
                worst = max(self._first[: self._WARM_UP])
                self.calibration = Calibration(max(self._MARGIN * worst, 1e-9))
        return Scores(values)

    def state(self) -> Document:
        """All it knows stands in its bundle."""
        return {}

    def restore(self, state: Document) -> None:
        """There is nothing to take up."""

    def close(self) -> None:
        """Free the interpreter."""
        self._graph = None


class _Graph:
    """An interpreter that holds windows of one of a few batch sizes at a time."""

    def __init__(self, blob: bytes) -> None:
        self._model = _interpreter(blob)
        self._input = self._model.get_input_details()[0]["index"]
        self.inputs = int(np.prod(self._model.get_input_details()[0]["shape"][1:]))
        details = {each["name"].split(":")[0]: each["index"] for each in self._model.get_output_details()}
        self._score = details.get("score", self._model.get_output_details()[0]["index"])
        self._contribution = details.get("contribution")
        self._batch = 0

    def run(self, flat: F4) -> tuple[F8, F8 | None]:
        """(n, inputs) to scores (n,) and squares (n, outputs)."""
        values: list[F8] = [np.empty(0)]
        parts: list[F8] = []
        at = 0
        while at < len(flat):
            batch = next((size for size in _BATCHES if size >= len(flat) - at), _BATCHES[-1])
            piece = flat[at : at + batch]
            at += len(piece)
            self._invoke(piece, batch)
            values.append(self._model.get_tensor(self._score).reshape(batch)[: len(piece)].astype(np.float64))
            if self._contribution is not None:
                parts.append(self._model.get_tensor(self._contribution)[: len(piece)].astype(np.float64))
        return np.concatenate(values), np.concatenate(parts) if parts else None

    def _invoke(self, piece: F4, batch: int) -> None:
        try:
            if batch != self._batch:
                self._model.resize_tensor_input(self._input, [batch, self.inputs])
                self._model.allocate_tensors()
                self._batch = batch
            if len(piece) < batch:
                piece = np.concatenate((piece, np.zeros((batch - len(piece), self.inputs), dtype=np.float32)))
            self._model.set_tensor(self._input, piece)
            self._model.invoke()
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"inference failed: {error}") from error


def _interpreter(blob: bytes) -> Any:
    """An interpreter of a model in memory, on whichever runtime there is.

    Raises:
        ModelError: there is no runtime, or it does not take the model.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - 13 MB that only this needs
    except ImportError:
        try:
            from tflite_runtime.interpreter import Interpreter  # noqa: PLC0415
        except ImportError as error:
            raise ModelError(
                "no TensorFlow Lite runtime for this Python and processor: tflite-runtime (Python 3.11) or "
                "ai-edge-litert; models of type 'zscore' work without"
            ) from error
    try:
        model = Interpreter(model_content=blob, num_threads=1)
        model.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"the runtime refuses the model: {error}") from error
    return model


def verify(found: bundle.Bundle) -> None:
    """Score the bundle's golden windows and hold the results against what they must be.

    Raises:
        ModelError: they differ, or the model does not run.
    """
    manifest = found.manifest
    windows = np.asarray(manifest.golden_windows, dtype=np.float32)
    scores, _ = _Graph(found.blob).run(windows)
    expected = np.asarray(manifest.golden_scores)
    if not np.isfinite(scores).all():
        raise ModelError("the model answers with numbers that are not finite")
    error = np.abs(scores - expected) / np.maximum(np.abs(expected), 1.0)
    if len(error) and error.max() > _GOLDEN_TOLERANCE:
        raise ModelError(f"the model does not score its golden windows: off by {error.max():.2g}")


def _build(config: Config, *, state_dir: Path) -> TFLite:
    return TFLite.at(state_dir / config.path)


PLUGIN = Plugin(Config, _build)
