"""Nothing outlives a test: no task, thread, socket or file."""

import asyncio
import functools
import inspect
import socket
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = _leaving_no_task(item.obj)


def _leaving_no_task(test):
    @functools.wraps(test)
    async def checked(*args, **kwargs):
        before = asyncio.all_tasks()
        await test(*args, **kwargs)
        for _ in range(3):  # what was cancelled or closed may need a turn of the loop to be gone
            await asyncio.sleep(0)
        left = [task for task in asyncio.all_tasks() - before if not task.done()]
        assert not left, f"tasks outlive the test: {left}"

    return checked


def _open_descriptors() -> dict[str, str]:
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[entry.name] = str(entry.readlink())
        except OSError:
            continue  # the descriptor of the listing itself
    return {number: target for number, target in found.items() if target.startswith(("socket:", "/dev/pt"))}


@pytest.fixture(autouse=True)
def _nothing_outlives_the_test() -> Iterator[None]:
    threads, descriptors = set(threading.enumerate()), _open_descriptors()
    yield
    for thread in set(threading.enumerate()) - threads:
        thread.join(timeout=2.0)
    left = [thread.name for thread in threading.enumerate() if thread not in threads]
    assert not left, f"threads outlive the test: {left}"
    opened = {number: target for number, target in _open_descriptors().items() if number not in descriptors}
    assert not opened, f"descriptors outlive the test: {opened}"


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def broker(tmp_path_factory):
    """The simulator's own MQTT broker; yields its MQTT 5 port."""
    from hw_sim.broker import Broker
    from hw_sim.scenario import free_port

    port = free_port()
    with Broker(mqtt5_port=port, mqtt311_port=free_port()):
        _wait_for(port)
        yield port


def _wait_for(port: int, timeout_s: float = 5.0) -> None:
    """Until somebody listens there."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


@pytest.fixture
def bare_tflite():
    """Makes the bytes of a small linear model of so many channels, one row per window."""
    from dxad.training.graph import to_tflite
    from dxad.training.linear import LinearDetector

    def make(channels: int) -> bytes:
        ones = np.ones(channels)
        return to_tflite(LinearDetector(1, 10 * ones, ones, np.eye(channels), np.arange(channels)))

    return make


@pytest.fixture
def dense_net():
    """Makes the bytes of a net of dense layers, its input (1, *shape): float32, or int8 throughout."""
    return _dense_net


def _dense_net(
    sizes: tuple[int, ...],
    *,
    shape: tuple[int, ...] | None = None,
    kind: str = "float",
    seed: int = 0,
    layers: list[tuple[np.ndarray, np.ndarray]] | None = None,
    softmax: bool = False,
    name: str = "out",
) -> bytes:
    """`sizes` are the widths from input to output; ReLU between them; `kind` is float, int8 or hybrid."""
    import tflite as schema

    from dxad.training.graph import Operator, Tensor, Writer

    rng = np.random.default_rng(seed)
    if layers is None:
        layers = [
            (rng.normal(size=(wide, deep)) / np.sqrt(deep), 0.1 * rng.normal(size=wide))
            for deep, wide in pairwise(sizes)
        ]
    whole, step = kind == "int8", 8.0 / 127  # what flows through an int8 net lies within +-8
    flow = {"type": schema.TensorType.INT8, "scale": step} if whole else {}
    tensors = [Tensor("in", (1, *(shape or (sizes[0],))), **flow)]
    operators = []
    before = "in"
    versions = {"float": 1, "hybrid": 3, "int8": 4}
    for number, (weight, bias) in enumerate(layers):
        last = number == len(layers) - 1
        after = name if last and not softmax else f"h{number}"
        if kind == "float":
            tensors.append(Tensor(f"w{number}", weight.shape, weight.astype("<f4").tobytes()))
            tensors.append(Tensor(f"b{number}", bias.shape, bias.astype("<f4").tobytes()))
        else:
            scale = float(np.abs(weight).max()) / 127
            rounded = np.rint(weight / scale).astype("<i1").tobytes()
            tensors.append(Tensor(f"w{number}", weight.shape, rounded, schema.TensorType.INT8, scale))
            if whole:
                integers = np.rint(bias / (scale * step)).astype("<i4").tobytes()
                tensors.append(
                    Tensor(f"b{number}", bias.shape, integers, schema.TensorType.INT32, scale * step)
                )
            else:
                tensors.append(Tensor(f"b{number}", bias.shape, bias.astype("<f4").tobytes()))
        tensors.append(Tensor(after, (1, len(bias)), **flow))

        def options(builder, relu=not last):
            schema.FullyConnectedOptionsStart(builder)
            if relu:
                schema.FullyConnectedOptionsAddFusedActivationFunction(
                    builder, schema.ActivationFunctionType.RELU
                )
            return schema.FullyConnectedOptionsEnd(builder)

        operators.append(
            Operator(
                schema.BuiltinOperator.FULLY_CONNECTED, (before, f"w{number}", f"b{number}"), after,
                schema.BuiltinOptions.FullyConnectedOptions, options, versions[kind],
            )
        )  # fmt: skip
        before = after
    if softmax:

        def beta(builder):
            schema.SoftmaxOptionsStart(builder)
            schema.SoftmaxOptionsAddBeta(builder, 1.0)
            return schema.SoftmaxOptionsEnd(builder)

        tensors.append(Tensor(name, (1, sizes[-1])))
        operators.append(
            Operator(
                schema.BuiltinOperator.SOFTMAX, (before,), name, schema.BuiltinOptions.SoftmaxOptions, beta
            )
        )
    return Writer(tensors, operators, outputs=[name]).file("test")


@pytest.fixture
def reshaped_net():
    """Makes the bytes of a graph of one matrix whose input has any shape: (1, *shape) to (1, outputs)."""
    return _reshaped_net


def _reshaped_net(
    shape: tuple[int, ...], weight: np.ndarray, *, fixed: bool = False, flat: bool = False
) -> bytes:
    """`fixed`: it reshapes to a batch of one; else to as many as come."""
    import tflite as schema

    from dxad.training.graph import Operator, Tensor, Writer

    weight = np.atleast_2d(weight)
    cells = weight.shape[1]
    to = np.array([1 if fixed else -1, cells], "<i4")

    def dense(builder):
        schema.FullyConnectedOptionsStart(builder)
        return schema.FullyConnectedOptionsEnd(builder)

    def reshape(builder):
        schema.ReshapeOptionsStart(builder)
        return schema.ReshapeOptionsEnd(builder)

    tensors = [
        Tensor("in", (1, cells) if flat else (1, *shape)),
        Tensor("to", (2,), to.tobytes(), schema.TensorType.INT32),
        Tensor("row", (1, cells)),
        Tensor("w", weight.shape, weight.astype("<f4").tobytes()),
        Tensor("out", (1, len(weight))),
    ]
    code, options = schema.BuiltinOperator, schema.BuiltinOptions
    operators = [
        Operator(code.RESHAPE, ("in", "to"), "row", options.ReshapeOptions, reshape),
        Operator(code.FULLY_CONNECTED, ("row", "w", None), "out", options.FullyConnectedOptions, dense),
    ]
    return Writer(tensors, operators, outputs=["out"]).file("test")
