"""What the engine's work costs in bare numpy and interpreter calls: the yardstick of `tests.bench.engine`.

Nothing of dxad is imported here. The same arrays go through the same arithmetic: into a ring, out of it,
through three transforms (scale, clip, mean of ten rows), into windows, through the net, into a judged score
and an alarm. There are no states, no missing values, no time grid, no counters, no evidence: just numbers.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.lib.stride_tricks import as_strided, sliding_window_view

__all__ = ["BATCH_MOST", "Inference", "Reference", "interpreter"]

BATCH_MOST: Final = 256


def interpreter(blob: bytes) -> Any:
    """A TensorFlow Lite interpreter with one thread, of whichever runtime is installed."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tflite_runtime.interpreter import Interpreter
    made = Interpreter(model_content=blob, num_threads=1)
    made.allocate_tensors()
    return made


class Inference:
    """A net that rebuilds its windows: windows in, mean squared errors out."""

    def __init__(self, blob: bytes) -> None:
        self._model = interpreter(blob)
        self._input = self._model.get_input_details()[0]["index"]
        self._output = self._model.get_output_details()[0]["index"]
        self._batch = 1

    def __call__(self, flat: np.ndarray) -> np.ndarray:
        """(n, inputs) float32 to (n,), at most 256 windows at a time."""
        scores = []
        for at in range(0, len(flat), BATCH_MOST):
            piece = flat[at : at + BATCH_MOST]
            if len(piece) != self._batch:
                self._model.resize_tensor_input(self._input, piece.shape)
                self._model.allocate_tensors()
                self._batch = len(piece)
            self._model.set_tensor(self._input, piece)
            self._model.invoke()
            error = self._model.get_tensor(self._output) - piece
            scores.append((error * error).mean(axis=1))
        return np.concatenate(scores)

    def scores(self, flat: np.ndarray) -> np.ndarray:
        """The same of a net whose graph ends in the score, all in one batch."""
        self.bare(flat)
        return self._model.get_tensor(self._output)

    def bare(self, flat: np.ndarray) -> None:
        """Nothing but `invoke`, on a batch whose input is there already."""
        if len(flat) != self._batch:
            self._model.resize_tensor_input(self._input, flat.shape)
            self._model.allocate_tensors()
            self._model.set_tensor(self._input, flat)
            self._batch = len(flat)
        self._model.invoke()


class Reference:
    """Rows in, judged scores out."""

    def __init__(
        self, blob: bytes, *, channels: int, looked_at: int, rows: int, slots: int, spans: Sequence[int]
    ) -> None:
        self._infer = Inference(blob)
        self._ring = np.empty((slots, channels))
        self._at = 0
        self._looked_at, self._rows = looked_at, rows
        self._smoothed = np.zeros((9, channels))
        self._tail = np.zeros((rows - 1, looked_at), dtype=np.float32)
        self._spans = spans
        self._scores = np.zeros(max(spans) - 1)
        self._above = 0
        self.raised = 0

    def step(self, values: np.ndarray) -> np.ndarray:
        """(n, channels) float64 to (n,)."""
        n = len(values)
        self._write(values)
        x = self._ring[np.arange(self._at - n, self._at) % len(self._ring)]
        x = 2.0 * x + 1.0
        np.clip(x, -1e3, 1e3, out=x)
        known = np.concatenate((self._smoothed, x))
        self._smoothed = known[-9:]
        sums = np.cumsum(known, axis=0)
        x = sums[9:].copy()
        x[1:] -= sums[: n - 1]
        x /= 10.0
        single = np.concatenate((self._tail, x[:, : self._looked_at].astype(np.float32)))
        self._tail = single[len(single) - self._rows + 1 :]
        inputs = self._rows * self._looked_at
        views = as_strided(single, (n, inputs), (single.strides[0], single.strides[1]))
        return self._judge(self._infer(np.ascontiguousarray(views)))

    def _write(self, values: np.ndarray) -> None:
        at, n, slots = self._at % len(self._ring), len(values), len(self._ring)
        head = min(n, slots - at)
        self._ring[at : at + head] = values[:head]
        self._ring[: n - head] = values[head:]
        self._at += n

    def _judge(self, scores: np.ndarray) -> np.ndarray:
        known = np.concatenate((self._scores, scores))
        reach = len(self._scores)
        self._scores = known[len(known) - reach :]
        views = [sliding_window_view(known[reach - span + 1 :], span) for span in self._spans]
        judged = np.max([view.mean(axis=1) for view in views], axis=0)
        if (judged > 1e6).any():
            self._above += 1
            self.raised += self._above == 10
        else:
            self._above = 0
        return judged
