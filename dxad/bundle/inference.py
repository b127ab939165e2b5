"""From windows to scores: what goes into a graph, and what is made of what comes out of it.

    rows ─ fill bad cells ─ normalise ─ quantise ─▶ windows, one strided copy ─▶ graph ─▶ rule ─▶ scores
    └──────────── each row once, however many windows it is in ────────────┘

Every number of a window is computed from that window's cells alone, so scores do not depend on which windows
share a batch.
"""

from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from dxad.bundle.interpreter import Graph, Tensor
from dxad.bundle.manifest import ForecastRule, Manifest, OutputRule, ProbabilityRule, ReconstructionRule
from dxad.errors import ModelError
from dxad.types import F4, F8, I8, Bools

__all__ = ["Scorer", "verify"]

_TINY: Final = 1e-300
_FLOOR: Final = 1e-3
"""Golden scores are compared relative to themselves; probabilities near 0 relative to this."""


class Scorer:
    """Scores windows of a bundle's channels, in the manifest's order."""

    def __init__(self, manifest: Manifest, blob: bytes) -> None:
        """Load the graph.

        Raises:
            ModelError: the runtime does not take it, or it is not what the manifest says.
        """
        self.rows = manifest.rows
        self.channels = len(manifest.channels)
        self._fill = np.asarray(manifest.fill, dtype=np.float32)
        self._mean = np.asarray(manifest.input.mean, dtype=np.float32)
        self._std = np.asarray(manifest.input.std, dtype=np.float32)
        self._normalises = len(self._mean) > 0
        self.graph = Graph(blob)
        seen = self.rows - (manifest.score.horizon if isinstance(manifest.score, ForecastRule) else 0)
        self._input = self.graph.input
        self._is_float = self._input.is_float
        self._cell = np.dtype(self._input.dtype).itemsize
        """Bytes."""
        self._steps = _steps(self._input, manifest, seen)
        self._lay(1, 0, 1)
        self._rule = _rule(self.graph, manifest)

    def score(
        self, rows: F4, n: int, *, first: int = 0, step: int = 1, holed: bool = True
    ) -> tuple[F8, F4 | None]:
        """Score `n` windows, of which the i-th begins at `rows[first + i * step]`.

        Args:
            rows: (m, channels), NaN where a cell is bad; stays as it is.
            n: how many windows.
            first: where the first begins.
            step: rows from one to the next.
            holed: whether there may be a NaN at all.

        Returns:
            Scores (n,) and contributions (n, channels), these None where the model has none. Bad cells stand
            at their fill, and their channels contribute nothing to the window.

        Raises:
            ModelError: inference failed.
        """
        if not rows.flags.c_contiguous:
            rows = np.ascontiguousarray(rows)  # windows are cut out of them by strides
        bad = np.isnan(rows) if holed else None
        if bad is not None:
            rows = np.where(bad, self._fill, rows)
        if self._normalises:
            rows = (rows - self._mean) / self._std
        numbers = rows if self._is_float else self._input.quantised(rows)
        if (n, first, step) != self._asked:
            self._lay(n, first, step)
        cells: npt.NDArray[Any] = np.ndarray(self._shape, numbers.dtype, numbers, self._offset, self._strides)
        truth = self._rule.truth(rows, n, first, step)
        values, parts = self._rule.read(self.graph.run(cells), truth)
        if len(values) < n:
            values, parts = self._rest(values, parts, cells, truth)
        if bad is not None and parts is not None:
            self._rule.forget(values, parts, self._bad_channels(bad, n, first, step))
        return values, parts

    def _rest(
        self, values: F8, parts: F4 | None, cells: npt.NDArray[Any], truth: F4 | None
    ) -> tuple[F8, F4 | None]:
        """Score the windows that come after these, and put them together."""
        found, at = [(values, parts)], len(values)
        while at < len(cells):
            n = self.graph.run(cells[at:])
            found.append(self._rule.read(n, None if truth is None else truth[at:]))
            at += len(found[-1][0])
        all_parts = [each for _, each in found if each is not None]
        return np.concatenate([each for each, _ in found]), np.concatenate(all_parts) if all_parts else None

    def _lay(self, n: int, first: int, step: int) -> None:
        """Find out how all windows, in the shape of the input, are a view of the rows: mostly as before."""
        per_row = self._cell * self.channels
        self._asked = (n, first, step)
        self._shape = (n, *self._input.shape)
        self._offset = first * per_row
        self._strides = (step * per_row, *(self._cell * each for each in self._steps))

    def _bad_channels(self, bad: Bools, n: int, first: int, step: int) -> Bools:
        """(n, channels): which have a bad cell in the window."""
        per_row = bad.strides[0]
        shape = (n, self.rows, self.channels)
        view: Bools = np.ndarray(shape, bool, bad, first * per_row, (step * per_row, per_row, 1))
        found: Bools = view.any(axis=1)
        return found


def _steps(tensor: Tensor, manifest: Manifest, rows: int) -> tuple[int, ...]:
    """How far apart in rows laid one after the other the cells of the input are, by its dimension.

    Raises:
        ModelError: the input has another shape than the manifest promises.
    """
    channels = len(manifest.channels)
    promised, steps = {
        "flat": ((rows * channels,), (1,)),
        "rows_channels": ((rows, channels), (channels, 1)),
        "channels_rows": ((channels, rows), (1, channels)),
    }[manifest.input.layout]
    kept = [step for length, step in zip(promised, steps, strict=True) if length != 1]
    if [each for each in tensor.shape if each != 1] != [each for each in promised if each != 1]:
        raise ModelError(
            f"the graph takes windows of shape {list(tensor.shape)}; the manifest promises {list(promised)}: "
            f"{rows} rows of {channels} channels, {manifest.input.layout}"
        )
    left = iter(kept)
    return tuple(0 if length == 1 else next(left) for length in tensor.shape)


class _Rule(Protocol):
    """What the outputs mean."""

    def truth(self, rows: F4, n: int, first: int, step: int) -> F4 | None:
        """What the output will be compared with, by window, if with anything."""

    def read(self, n: int, truth: F4 | None) -> tuple[F8, F4 | None]:
        """Scores (n,) and contributions (n, channels) of what came out of the last run; `truth` may go on."""

    def forget(self, values: F8, parts: F4, bad: Bools) -> None:
        """Take what these channels contribute out."""


def _rule(graph: Graph, manifest: Manifest) -> _Rule:
    rule = manifest.score
    if isinstance(rule, OutputRule):
        return _Output(graph, rule, len(manifest.channels))
    if isinstance(rule, ProbabilityRule):
        return _Probability(graph, rule)
    return _Error(graph, rule, manifest)


def _output(graph: Graph, name: str) -> Tensor:
    """The output of this name, or the one called score, or the only one.

    Raises:
        ModelError: there is none, or it is not clear which.
    """
    by_name = {each.name: each for each in graph.outputs}
    by_name |= {each.name.split(":")[0]: each for each in graph.outputs}
    if name or "score" in by_name:
        if (name or "score") in by_name:
            return by_name[name or "score"]
    elif len(graph.outputs) == 1:
        return graph.outputs[0]
    known = ", ".join(repr(each.name) for each in graph.outputs)
    raise ModelError(
        f"the graph has no output {name!r}, but {known}" if name else f"which output is it: {known}?"
    )


class _Output:
    """An output is the score."""

    def __init__(self, graph: Graph, rule: OutputRule, channels: int) -> None:
        self._graph = graph
        self._score = _output(graph, rule.output)
        if self._score.size != 1:
            raise ModelError(
                f"output {self._score.name!r} has shape {list(self._score.shape)}; a score is one number per "
                "window"
            )
        self._parts: Tensor | None = None
        if rule.contribution:
            self._parts = _output(graph, rule.contribution)
            if self._parts.size != len(rule.contribution_columns):
                raise ModelError(
                    f"output {self._parts.name!r} has {self._parts.size} numbers a window; the manifest lays "
                    f"{len(rule.contribution_columns)} to channels"
                )
            self._owned = _Owned(rule.contribution_columns, channels)

    def truth(self, rows: F4, n: int, first: int, step: int) -> None:
        """Nothing."""

    def read(self, n: int, truth: F4 | None) -> tuple[F8, F4 | None]:  # noqa: ARG002 - the protocol's
        """Take the score as it is."""
        values = self._graph.output(self._score, n).astype(np.float64)
        if values.ndim > 1:
            values = values.reshape(n)
        if self._parts is None:
            return values, None
        return values, self._owned.by_channel(self._graph.output(self._parts, n).reshape(n, -1))

    def forget(self, values: F8, parts: F4, bad: Bools) -> None:
        """The score stays: the graph saw the fill."""
        del values
        parts[bad] = 0.0


class _Owned:
    """Sums numbers by the channel they belong to."""

    def __init__(self, columns: Sequence[int], channels: int) -> None:
        owner: I8 = np.asarray(columns, dtype=np.int64)
        self._channels = channels
        self._times = len(owner) // channels
        self._in_turn = np.array_equal(owner, np.tile(np.arange(channels), self._times))
        self._by_owner = np.argsort(owner, kind="stable")
        self._owners, self._begins = np.unique(owner[self._by_owner], return_index=True)

    def by_channel(self, parts: F4) -> F4:
        """(n, k) to (n, channels)."""
        if self._in_turn:
            summed: F4 = parts
            if self._times != 1:
                summed = np.einsum("nkc->nc", parts.reshape(len(parts), self._times, self._channels))
            return summed
        mine = np.zeros((len(parts), self._channels), dtype=np.float32)
        if len(self._owners):
            mine[:, self._owners] = np.add.reduceat(parts[:, self._by_owner], self._begins, axis=1)
        return mine


class _Error:
    """The output is held against rows of the window: the mean square of the error, over the spread.

    part_c = 1 / (rows · channels) · Σ over rows ((output - seen) / spread_c)², score = Σ over c part_c.
    """

    def __init__(self, graph: Graph, rule: ReconstructionRule | ForecastRule, manifest: Manifest) -> None:
        output = _output(graph, rule.output)
        self._graph = graph
        self._output = output
        self._channels = len(manifest.channels)
        self._rows = rule.horizon if isinstance(rule, ForecastRule) else manifest.rows
        self._from = manifest.rows - self._rows
        self._turned = manifest.input.layout == "channels_rows"
        self._scratch = np.empty((graph.sizes[-1], output.size), dtype=np.float32)
        self._plain = output.is_float and not self._turned and len(output.shape) == 1
        promised = [self._channels, self._rows] if self._turned else [self._rows, self._channels]
        if output.size != self._rows * self._channels:
            raise ModelError(
                f"output {output.name!r} has shape {list(output.shape)}; a {rule.rule} of {self._rows} rows "
                f"of {self._channels} channels has {promised}"
            )
        spread = np.asarray(rule.spread) if rule.spread else np.ones(1)
        self._weight = (1.0 / (spread**2 * self._rows * self._channels)).astype(np.float32)

    def truth(self, rows: F4, n: int, first: int, step: int) -> F4:
        """(n, rows · channels) of those rows that the output is of."""
        per_row = rows.strides[0]
        shape = (n, self._rows * self._channels)
        return np.ndarray(
            shape, np.float32, rows, (first + self._from) * per_row, (step * per_row, rows.itemsize)
        )

    def read(self, n: int, truth: F4 | None) -> tuple[F8, F4]:
        """Square what is left."""
        assert truth is not None
        error = self._scratch[:n]
        if self._plain:
            self._graph.subtract(self._output, truth[:n], error)
        else:
            output = self._graph.output(self._output, n)
            if self._turned:
                output = output.reshape(n, self._channels, self._rows).transpose(0, 2, 1)
            np.subtract(output.reshape(n, -1), truth[:n], out=error)
        if self._rows == 1:
            parts = np.multiply(error, error)
        else:
            error = error.reshape(n, self._rows, self._channels)
            parts = np.einsum("nrc,nrc->nc", error, error)  # the same to the bit however many rows there are
        np.multiply(parts, self._weight, out=parts)
        return np.einsum("nc->n", parts).astype(np.float64), parts

    def forget(self, values: F8, parts: F4, bad: Bools) -> None:
        """The score is the mean over the channels that are whole; without any, there is none."""
        parts[bad] = 0.0
        holed = bad.any(axis=1)
        whole = self._channels - bad[holed].sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            values[holed] = parts[holed].sum(axis=1, dtype=np.float64) * self._channels / whole


class _Probability:
    """The output has a number per class."""

    def __init__(self, graph: Graph, rule: ProbabilityRule) -> None:
        output = _output(graph, rule.output)
        self._graph = graph
        self._output = output
        self._normal = rule.normal
        self._anomalous = list(rule.anomalous)
        classes = [*self._anomalous] if rule.normal is None else [rule.normal]
        if max(classes) >= output.size:
            raise ModelError(
                f"output {output.name!r} has shape {list(output.shape)}; there is no class {max(classes)}"
            )

    def truth(self, rows: F4, n: int, first: int, step: int) -> None:
        """Nothing."""

    def read(self, n: int, truth: F4 | None) -> tuple[F8, None]:  # noqa: ARG002 - the protocol's
        """How probable it is that something is wrong."""
        classes = self._graph.output(self._output, n).reshape(n, -1).astype(np.float64)
        if self._normal is not None:
            return 1.0 - classes[:, self._normal], None
        values: F8 = classes[:, self._anomalous].sum(axis=1)
        return values, None

    def forget(self, values: F8, parts: F4, bad: Bools) -> None:
        """Nothing is laid to any channel."""


def verify(scorer: Scorer, manifest: Manifest, *, batch: int | None = None) -> None:
    """Score the bundle's golden windows and hold the results against what they must be.

    Args:
        scorer: the model.
        manifest: of its bundle.
        batch: how many windows to score at once: the golden ones over and over; None for one round of them.

    Raises:
        ModelError: they differ, or the model does not run.
    """
    golden = len(manifest.golden_windows)
    if not golden:
        return
    n = golden if batch is None else batch
    order = np.arange(n) % golden
    windows = np.asarray(manifest.golden_windows, dtype=np.float32)[order]
    scores, parts = scorer.score(windows.reshape(n * manifest.rows, -1), n, step=manifest.rows, holed=False)
    expected = np.asarray(manifest.golden_scores)
    floor = _FLOOR if isinstance(manifest.score, ProbabilityRule) else float(np.median(np.abs(expected)))
    _compare(scores, expected[order], floor, manifest.golden_tolerance, "golden windows")
    known = np.asarray(manifest.golden_contributions)
    if len(known):
        if parts is None:
            raise ModelError("the manifest has golden contributions, but the model makes none")
        have = order < len(known)
        whole = np.abs(known).sum(axis=1)[order[have]]
        error = np.abs(parts[have] - known[order[have]]).max(axis=1)
        _compare(error + whole, whole, 0.0, 10 * manifest.golden_tolerance, "golden contributions")


def _compare(found: F8, expected: F8, floor: float, tolerance: float, what: str) -> None:
    if not np.isfinite(found).all():
        raise ModelError("the model answers with numbers that are not finite")
    error = np.abs(found - expected) / np.maximum(np.abs(expected), floor + _TINY)
    if error.max() > tolerance:
        raise ModelError(
            f"the model does not score its {what}: off by {error.max():.2g} of what they must be"
        )
