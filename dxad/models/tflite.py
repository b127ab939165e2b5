"""TensorFlow Lite models, from bundles (see `dxad.bundle`)."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from dxad import bundle
from dxad.bundle.inference import Scorer
from dxad.bundle.interpreter import Graph, place
from dxad.bundle.manifest import Manifest
from dxad.bundle.signing import Policy
from dxad.errors import ModelError, ModelRefusedError
from dxad.fields import ModelSection
from dxad.plugin import Plugin
from dxad.types import F4, F8, I8, Bools, Calibration, Channel, Document, Scores, Windows

__all__ = ["PLUGIN", "BareTFLite", "Config", "TFLite"]

_BAD_MOST: Final = 0.2
"""A window in which regimes nobody has learned make more than this share of cells bad has no score."""


class Config(ModelSection):
    """`{ type = "tflite", path = "models/pump" }`."""

    type: Literal["tflite"]
    path: Path = Field(
        strict=False, description="a bundle, or a shelf of them; relative to the state directory"
    )
    require_signature: bool = Field(
        default=False, description="refuse bundles that are not signed by public_key"
    )
    public_key: str | None = Field(
        None,
        description="ed25519, in base64, hex or a PEM file relative to the state directory; a bundle that is "
        "signed by another key is refused",
    )

    @model_validator(mode="after")
    def _trusts_somebody(self) -> Self:
        if self.require_signature and self.public_key is None:
            raise ValueError("require_signature wants the public_key that bundles are signed by")
        return self

    def bundles(self) -> tuple[Path, ...]:
        """The one at its path."""
        return (self.path,)

    def policy(self, state_dir: Path) -> Policy | None:
        """Whose bundles are used; None is anybody's."""
        if self.public_key is None:
            return None
        return Policy(self.public_key, required=self.require_signature, folder=state_dir)


class TFLite:
    """Scores windows with the bundle's graph, and knows what is normal in each regime if the bundle does."""

    def __init__(self, found: bundle.Bundle) -> None:
        self._bundle = found
        self.version = found.version
        self.calibration: Calibration | None = found.manifest.calibration
        self._columns: I8 = np.empty(0, dtype=np.int64)
        self._width = 0
        self._as_they_are = False
        """Whether the pipeline's columns are the model's, one for one."""
        self._regimes: _Regimes | None = None
        self._scorer: Scorer | None = None

    @property
    def periods(self) -> tuple[int, ...]:
        """That of the rows it was learned from."""
        return (self._bundle.manifest.period,)

    @classmethod
    def at(cls, path: Path, *, policy: Policy | None = None) -> "TFLite":
        """The model at a path of a configuration; `trial.ensure_tried` must have been there before.

        Raises:
            ModelError: there is none, or it is refused, or nobody tried it on this machine with this runtime.
        """
        folder = bundle.current(path) or path
        found = bundle.read(folder, policy=policy)
        if not bundle.is_tried(folder, found.contents, place()):
            raise ModelRefusedError(
                f"{folder}: was not tried on this machine with this runtime; `dxad models verify` does"
            )
        return cls(found)

    def load(self, channels: Sequence[Channel], rows: int | None, *, by: int | None = None) -> int:
        """Find the model's channels among these.

        Raises:
            ModelError: one is missing, has another unit, the windows have another length, or the regimes are
                told by another channel than in training.
        """
        manifest = self._bundle.manifest
        place_of = {channel.id: (column, channel.unit) for column, channel in enumerate(channels)}
        for name, unit in zip(manifest.channels, manifest.units, strict=True):
            if name not in place_of:
                raise ModelError(f"the model wants channel {name!r}, which the pipeline does not have")
            if place_of[name][1] != unit:
                raise ModelError(
                    f"channel {name!r} is in {place_of[name][1]!r}, the model was made for {unit!r}"
                )
        if rows is not None and rows < manifest.rows:
            raise ModelError(f"the model wants windows of {manifest.rows} rows, the pipeline has {rows}")
        self._columns = np.array([place_of[name][0] for name in manifest.channels], dtype=np.int64)
        self._width = len(channels)
        self._as_they_are = np.array_equal(self._columns, np.arange(self._width))
        self._regimes = _regimes(manifest, channels, by)
        self._scorer = Scorer(manifest, self._bundle.blob)
        return manifest.rows

    def score(self, windows: Windows) -> Scores:
        """Score each window; bad cells stand at the training median and contribute nothing.

        A window that ends in a regime that was not in training, or has much of one in it, has no score.

        Raises:
            ModelError: not loaded, or the runtime failed.
        """
        scorer = self._scorer
        if scorer is None:
            raise ModelError("score before load")
        n, wide, _ = windows.values.shape
        if not n:
            return Scores(np.empty(0), np.empty((0, self._width), dtype=np.float32))
        rows, step = windows.base, windows.step
        if rows is None:
            rows, step = np.ascontiguousarray(windows.values).reshape(-1, self._width), wide
        first = wide - scorer.rows
        holed = not windows.whole and np.count_nonzero(windows.bad) > 0
        unknown: Bools | None = None
        if self._regimes is not None:
            rows, unknown = self._regimes.standardised(rows, self._columns)
            holed = True
        elif not self._as_they_are:
            rows = rows.take(self._columns, axis=1)
        values, parts = scorer.score(rows, n, first=first, step=step, holed=holed)
        if unknown is not None and unknown.any():
            ends = first + scorer.rows - 1 + step * np.arange(n)
            share = _share(unknown, n, first, step, scorer.rows)
            values[unknown[ends] | (share > _BAD_MOST)] = np.nan
        if parts is None or self._as_they_are:
            return Scores(values, parts)
        contributions = np.zeros((n, self._width), dtype=np.float32)
        contributions[:, self._columns] = parts
        return Scores(values, contributions)

    def state(self) -> Document:
        """All it knows stands in its bundle."""
        return {}

    def restore(self, state: Document) -> None:
        """There is nothing to take up."""

    def close(self) -> None:
        """Free the interpreter."""
        self._scorer = None


def _share(rows: Bools, n: int, first: int, step: int, width: int) -> F8:
    """(n,): the share of each window's rows for which it is so."""
    sums = np.concatenate(([0], np.cumsum(rows)))
    begins = first + step * np.arange(n)
    share: F8 = (sums[begins + width] - sums[begins]) / width
    return share


class _Regimes:
    """Moves rows from what is normal in their own regime to what is normal in all of them taken together.

    x' = (x - mean_r) / std_r · std + mean, by channel, with r the value of the `by` column.
    """

    def __init__(self, manifest: Manifest, by: int) -> None:
        ordered = sorted(manifest.regimes, key=lambda each: each.value)
        normal = np.array([manifest.normal[name] for name in manifest.channels])
        self._by = by
        self._values: F4 = np.array([each.value for each in ordered], dtype=np.float32)
        self._mean = np.array([each.mean for each in ordered])
        self._gain = normal[:, 1] / np.array([each.std for each in ordered])
        self._all_mean = normal[:, 0]

    def standardised(self, rows: F4, columns: I8) -> tuple[F4, Bools]:
        """(m, channels of the pipeline) to those of the model, and which rows (m,) are of no known regime."""
        values = rows[:, self._by]
        place_of = np.minimum(np.searchsorted(self._values, values), len(self._values) - 1)
        unknown: Bools = self._values[place_of] != values
        moved = (rows[:, columns] - self._mean[place_of]) * self._gain[place_of] + self._all_mean
        moved[unknown] = np.nan
        return moved.astype(np.float32), unknown


def _regimes(manifest: Manifest, channels: Sequence[Channel], by: int | None) -> _Regimes | None:
    """Raises ModelError: the model and the pipeline do not agree on what tells the regimes apart."""
    asked = "" if by is None else channels[by].id
    if asked == manifest.by:
        return None if by is None else _Regimes(manifest, by)
    if not manifest.by:
        raise ModelError(f"this model knows no regimes: it was not learned by {asked!r}; learn it anew")
    raise ModelError(f"the model was learned by {manifest.by!r}; say by = {manifest.by!r}, or learn it anew")


class BareTFLite:
    """A `.tflite` file without a manifest: its first output is the score, its first scores are normal."""

    _WARM_UP: Final = 100
    _MARGIN: Final = 1.5

    def __init__(self, blob: bytes) -> None:
        """Of the bytes of a file that was tried."""
        self._blob = blob
        self.version = hashlib.sha256(self._blob).hexdigest()[:12]
        self.calibration: Calibration | None = None
        self._graph: Graph | None = None
        self._first: list[float] = []

    def load(self, channels: Sequence[Channel], rows: int | None, *, by: int | None = None) -> int:
        """Windows of as many rows as the graph's input holds.

        Raises:
            ModelError: that is no whole number of rows, or not what the configuration asks for.
        """
        if by is not None:
            raise ModelError("this model knows no regimes")
        self._graph = Graph(self._blob)
        wanted, rest = divmod(self._graph.input.size, len(channels))
        if rest or rows not in (None, wanted):
            raise ModelError(
                f"the graph takes {self._graph.input.size} numbers, not rows of {len(channels)} channels"
            )
        return wanted

    def score(self, windows: Windows) -> Scores:
        """Score each window without bad cells; there is no training median that could stand for one."""
        if self._graph is None:
            raise ModelError("score before load")
        whole = ~np.isnan(windows.values).any(axis=(1, 2))
        values = np.full(len(windows), np.nan)
        values[whole] = self._run(self._graph, windows.values[whole])
        if self.calibration is None and not windows.question:
            wanted = self._WARM_UP - len(self._first)
            self._first += values[whole][:wanted].tolist()
            if len(self._first) == self._WARM_UP:
                limit = max(self._MARGIN * max(self._first), 1e-9)
                self.calibration = Calibration(limit, since=int(windows.last[whole][wanted - 1]))
        return Scores(values)

    def _run(self, graph: Graph, windows: F4) -> F8:
        names = [each.name.split(":")[0] for each in graph.outputs]
        score = graph.outputs[names.index("score") if "score" in names else 0]
        values, at = np.empty(len(windows)), 0
        cells = windows.reshape(len(windows), *graph.input.shape)
        cells = cells if graph.input.is_float else graph.input.quantised(cells)
        while at < len(windows):
            n = graph.run(cells[at:])
            values[at : at + n] = graph.output(score, n).reshape(n, -1)[:, 0]
            at += n
        return values

    def state(self) -> Document:
        """Nothing that would be worth keeping."""
        return {}

    def restore(self, state: Document) -> None:
        """There is nothing to take up."""

    def close(self) -> None:
        """Free the interpreter."""
        self._graph = None


def _build(config: Config, *, state_dir: Path) -> TFLite:
    return TFLite.at(state_dir / config.path, policy=config.policy(state_dir))


PLUGIN = Plugin(Config, _build)
