"""A daemon's folder and configuration, and a sensor that publishes to the broker it names."""

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.system.process import CONFIG, Sensor


@pytest.fixture
def sensor(broker):
    sensor = Sensor(broker)
    yield sensor
    sensor.close()


@pytest.fixture
def folder(tmp_path_factory):
    """A short path: a socket's name has 107 bytes."""
    return tmp_path_factory.mktemp("d")


@pytest.fixture
def config(folder, broker, free_port):
    path = folder / "dxad.toml"
    path.write_text(CONFIG.format(folder=folder, broker=broker, sink=free_port))
    return path


@pytest.fixture(scope="module")
def disk_folder():
    """A folder on the checkout's disk: pytest's own may be in memory, where syncs mean nothing."""
    folder = Path(tempfile.mkdtemp(prefix=".durability-", dir=Path(__file__).parents[2]))
    yield folder
    shutil.rmtree(folder)
