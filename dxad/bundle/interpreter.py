"""The TensorFlow Lite runtime, as far as scoring needs it: one input, named outputs, a few batch sizes.

Runs on LiteRT where that is installed, else on tflite-runtime; always with one thread, which is the fastest
for nets of this size.
"""

import hashlib
import platform
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from dxad.errors import ModelError
from dxad.types import F4

__all__ = ["BATCHES", "Graph", "Tensor", "place", "runtime"]

BATCHES: Final = (1, 8, 32, 256)
"""Windows per call; a fixed set, because every new size makes the interpreter plan its memory anew."""
_INTEGERS: Final = (np.int8, np.uint8, np.int16)
_RUNTIMES: Final = ("ai-edge-litert", "tflite-runtime")
_MACHINE_ID: Final = Path("/etc/machine-id")


@cache
def runtime() -> str:
    """Which runtime there is, with its version; empty where there is none."""
    for name in _RUNTIMES:
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return ""


@cache
def place() -> str:
    """What a trial is valid for: this machine, runtime and numpy; a short hash."""
    try:
        machine = _MACHINE_ID.read_text().strip()
    except OSError:
        machine = ""
    parts = (machine or platform.node(), platform.machine(), runtime(), np.__version__)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a graph."""

    name: str
    index: int
    shape: tuple[int, ...]
    """Of one window: without the first dimension, which is the batch."""
    dtype: type[np.generic]
    is_float: bool
    """Whether its numbers are what they say; else, integers that stand for them."""
    scale: float
    """What one step of an integer is worth; 0 where the tensor is float."""
    zero_point: int

    @classmethod
    def of(cls, details: dict[str, Any]) -> Self:
        """Read what the runtime tells of it.

        Raises:
            ModelError: its numbers are neither float32 nor integers with a scale.
        """
        name, dtype = str(details["name"]), details["dtype"]
        scale, zero_point = details["quantization"]
        if dtype not in (np.float32, *_INTEGERS):
            raise ModelError(
                f"tensor {name!r} is of {np.dtype(dtype).name}; float32, int8, uint8 and int16 will do"
            )
        if dtype != np.float32 and not scale > 0:
            raise ModelError(
                f"tensor {name!r} is of {np.dtype(dtype).name} without a scale: nobody knows its numbers"
            )
        shape = tuple(int(each) for each in details["shape"][1:])
        is_float = dtype == np.float32
        return cls(name, int(details["index"]), shape, dtype, is_float, float(scale), int(zero_point))

    @property
    def size(self) -> int:
        """How many numbers there are of one window."""
        return int(np.prod(self.shape, dtype=np.int64))

    def quantised(self, values: F4) -> npt.NDArray[Any]:
        """Real numbers as the tensor's integers: round(x / scale) + zero_point, within their range."""
        limits: Any = np.iinfo(np.dtype(self.dtype))
        steps = np.rint(values / np.float32(self.scale)) + self.zero_point
        whole: npt.NDArray[Any] = np.clip(steps, limits.min, limits.max).astype(self.dtype)
        return whole

    def real(self, values: npt.NDArray[Any]) -> F4:
        """The tensor's integers as real numbers."""
        return (values.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)


class Graph:
    """An interpreter that holds windows of one of a few batch sizes at a time."""

    def __init__(self, blob: bytes) -> None:
        """Load the model in `blob`.

        Raises:
            ModelError: there is no runtime, or it does not take the model, or the model has several inputs.
        """
        self._model = _interpreter(blob)
        inputs = self._model.get_input_details()
        if len(inputs) != 1:
            raise ModelError(f"the graph has {len(inputs)} inputs; a window goes into one")
        self.input = Tensor.of(inputs[0])
        self.outputs = tuple(Tensor.of(each) for each in self._model.get_output_details())
        self._batch = int(inputs[0]["shape"][0]) if len(inputs[0]["shape"]) else 0
        if self._batch < 1:
            raise ModelError(f"the graph's input has shape {list(inputs[0]['shape'])}, without a batch")
        self.sizes = self._sizes(blob)
        self._view = self._model.tensor(self.input.index)

    def _sizes(self, blob: bytes) -> tuple[int, ...]:
        """The batch sizes the graph can do; a graph with the size built in does that one only."""
        own = self._batch
        if self._follows(BATCHES[1]):
            return BATCHES
        self._model, self._batch = _interpreter(blob), own  # as good as new
        return (own,)

    def _follows(self, batch: int) -> bool:
        """Whether all outputs take this batch size on when the input does."""
        try:
            self._resize(batch)
        except (RuntimeError, ValueError):
            return False  # it reshapes to a fixed size, for example
        shapes = [each["shape"] for each in self._model.get_output_details()]
        return all(len(shape) > 0 and shape[0] == batch for shape in shapes)

    def _resize(self, batch: int) -> None:
        self._model.resize_tensor_input(self.input.index, [batch, *self.input.shape])
        self._model.allocate_tensors()
        self._batch = batch

    def run(self, cells: npt.NDArray[Any]) -> int:
        """Score windows (n, *input.shape) of the input's own numbers: as many as fit into a batch.

        Returns:
            How many that were.

        Raises:
            ModelError: inference failed.
        """
        n = len(cells)
        try:
            if n != self._batch:
                n = min(n, self._fit(n))
            # A view of the input may not be held: while one is, the runtime refuses to do anything.
            if n == self._batch == len(cells):
                np.copyto(self._view(), cells)
            else:
                self._view()[:n] = cells[:n]
            self._model.invoke()
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"inference failed: {error}") from error
        return n

    def _fit(self, n: int) -> int:
        """Get ready for a batch that holds `n` windows, or the first of them; returns its size."""
        size = next((each for each in self.sizes if each >= n), self.sizes[-1])
        if size != self._batch:
            self._resize(size)
        return size

    def subtract(self, tensor: Tensor, other: F4, out: F4) -> None:
        """A flat float output of the last run minus `other` (n, size), into `out`: no copy in between."""
        values = self._model.tensor(tensor.index)()
        np.subtract(values if len(values) == len(other) else values[: len(other)], other, out=out)

    def output(self, tensor: Tensor, n: int) -> F4:
        """What came out of the last run for its first `n` windows, (n, *tensor.shape), a copy."""
        values = self._model.get_tensor(tensor.index)
        if values.ndim == 0:
            values = values.reshape(-1)
        if len(values) != n:
            values = values[:n]
        return values if tensor.is_float else tensor.real(values)


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
