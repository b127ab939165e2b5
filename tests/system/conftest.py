"""A daemon's folder and configuration, and a sensor that publishes to the broker it names."""

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
