"""Nothing outlives a test: no task, thread, socket or file."""

import asyncio
import functools
import inspect
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dxad.runtime.clock import SteppedClock, SystemClock
from dxad.runtime.worker import Worker
from tests import pace
from tests.patience import PATIENCE_S


def pytest_asyncio_loop_factories(config, item):
    if item.get_closest_marker("one_loop") is not None:
        return {"one": pace.one_loop}
    return {"patient": pace.new_event_loop}


@pytest.fixture(scope="session", autouse=True)
def _clocks_stand_still_while_the_machine_does() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.events, "new_event_loop", pace.new_event_loop)  # that of asyncio.run
        patch.setattr(SystemClock, "now", pace.PatientClock.now)
        patch.setattr(SystemClock, "utc", pace.PatientClock.utc)
        patch.setattr(SteppedClock, "_settle", pace.settle)
        patch.setattr(Worker, "__init__", pace.note_worker)
        yield


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
    from hw_sim.mqtt.broker import Broker
    from hw_sim.ports import free_port

    port = free_port()
    with Broker(mqtt5_port=port, mqtt311_port=free_port()):
        _wait_for(port)
        yield port


def _wait_for(port: int, timeout_s: float = PATIENCE_S) -> None:
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


FUNCTIONS = """
import numpy as np

def power(columns):
    made = np.full_like(columns["plc.flow"], np.nan)
    np.multiply(columns["plc.flow"], 0.5, out=made)
    return made

def greedy(columns):
    for column in columns.values():
        column[:] = np.nan_to_num(column) + 1.0  # it may do so with what it is given
    return columns["vib.x"]

def broken(columns):
    raise ZeroDivisionError("as a user's function may")

def short(columns):
    return columns["plc.flow"][:-1]

def wordy(columns):
    return ["three", "words", "here"]

def quitting(columns):
    raise SystemExit(3)

def fickle(columns):
    if any((column > 1000).any() for column in columns.values()):
        raise OverflowError("more than a thousand")
    return sum(columns.values())

def slip(columns):
    return next(iter(columns.values()))

constant = 5
"""


@pytest.fixture(scope="session", autouse=True)
def _functions_of_the_plant(tmp_path_factory) -> Iterator[None]:
    """A distribution that is installed beside dxad and brings functions for the transform `call`."""
    folder = tmp_path_factory.mktemp("site-packages")
    (folder / "plant_functions.py").write_text(FUNCTIONS)
    info = folder / "plant_functions-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plant-functions\nVersion: 1.0\n")
    names = ("power", "greedy", "broken", "fickle", "short", "wordy", "quitting", "slip", "constant", "gone")
    lines = "".join(f"{name} = plant_functions:{name}\n" for name in names)
    (info / "entry_points.txt").write_text(f"[dxad.functions]\n{lines}lost = no_such_library_xyz:f\n")
    sys.path.append(str(folder))
    yield
    sys.path.remove(str(folder))
    sys.modules.pop("plant_functions", None)


@pytest.fixture
def dense_net():
    """Makes the bytes of a net of dense layers, its input (1, *shape): float32, or int8 throughout."""
    from tests.nets import dense

    return dense


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


@pytest.fixture(scope="session")
def postgres_server():
    """A PostgreSQL of our own; where there is none, its tests are skipped."""
    from tests.postgres import serving

    with serving() as server:
        yield server
