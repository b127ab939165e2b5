"""From a name in a configuration to the class that does it, ours or somebody else's."""

import subprocess
import sys

import pytest

from dxad import config, plugin
from dxad.errors import ConfigError
from tests.patience import PATIENCE_S

PLUGIN_FILE = """
from typing import Literal
from dxad.fields import ChannelSection, Identifier, SourceSection
from dxad.plugin import Plugin

class Config(SourceSection):
    type: Literal["can"]
    bitrate: int = 500_000
    channels: dict[Identifier, ChannelSection] = {}

    def channel_sections(self):
        return self.channels

class Can:
    def __init__(self, name, config, *, clock):
        self.name = name

PLUGIN = Plugin(Config, Can)
NOT_ONE = "something else"
"""

CONFIG = """
[sources.bus]
type = "can"
period = "10ms"
bitrate = {bitrate}
channels = {{ rpm = {{}} }}
"""


@pytest.fixture
def somebody_elses(tmp_path, monkeypatch):
    """A distribution that is installed beside dxad and brings sources of its own."""
    (tmp_path / "canbus.py").write_text(PLUGIN_FILE)
    info = tmp_path / "canbus-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: canbus\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[dxad.sources]\ncan = canbus:PLUGIN\nbroken = canbus:NOT_ONE\nmissing = no_such_library_xyz:PLUGIN\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    plugin.names.cache_clear()
    plugin.load.cache_clear()
    yield tmp_path
    sys.modules.pop("canbus", None)
    plugin.names.cache_clear()
    plugin.load.cache_clear()


def test_each_family_has_what_the_first_release_promises():
    assert set(plugin.names("sources")) >= {"mqtt", "modbus", "opcua", "serial"}
    assert set(plugin.names("transforms")) >= {"scale", "smooth", "summarize"}
    assert set(plugin.names("models")) >= {"tflite", "zscore"}
    assert set(plugin.names("sinks")) >= {"http", "file"}
    assert set(plugin.names("decode")) >= {"json", "csv"}


@pytest.mark.parametrize("family", ["sources", "sinks", "transforms", "models", "decode"])
def test_every_plugin_of_a_family_can_be_loaded(family):
    for name in plugin.names(family):
        assert isinstance(plugin.load(family, name), plugin.Plugin)


def test_a_name_that_is_not_there_is_met_with_the_nearest():
    with pytest.raises(ConfigError, match=r"no source of type 'modbsu', did you mean 'modbus'\?"):
        plugin.load("sources", "modbsu")
    with pytest.raises(ConfigError, match=r"no sink of type 'pigeon', known: file, http"):
        plugin.load("sinks", "pigeon")


def test_a_plugin_of_another_distribution_is_found_and_its_keys_are_checked(somebody_elses, tmp_path):
    assert plugin.load("sources", "can").build.__name__ == "Can"
    path = tmp_path / "dxad.toml"
    path.write_text(CONFIG.format(bitrate=250_000))
    assert config.load(path).sources["bus"].bitrate == 250_000
    path.write_text(CONFIG.format(bitrate='"fast"'))
    with pytest.raises(ConfigError, match=r"dxad.toml:5: sources.bus.bitrate: "):
        config.load(path)


def test_a_plugin_whose_library_is_missing_says_which(somebody_elses):
    with pytest.raises(ConfigError, match=r"source 'missing' needs the Python package 'no_such_library_xyz'"):
        plugin.load("sources", "missing")


def test_an_entry_point_that_is_no_plugin_is_refused(somebody_elses):
    with pytest.raises(ConfigError, match=r"source 'broken': its entry point is a str, not a Plugin"):
        plugin.load("sources", "broken")


MQTT_ONLY = """
[sources.motor]
type = "mqtt"
url = "mqtt://127.0.0.1"
topic = "motor"
period = "100ms"
channels = { current = {} }
"""


def test_only_the_protocols_that_a_configuration_names_are_imported(tmp_path):
    (tmp_path / "dxad.toml").write_text(MQTT_ONLY)
    script = (
        "import sys, pathlib, dxad.daemon, dxad.config\n"
        "dxad.config.load(pathlib.Path('dxad.toml'))\n"
        "print(*[each for each in ('mqtt5', 'asyncua', 'pymodbus', 'serial', 'aiohttp', 'flatbuffers', "
        "'sqlite_utils', 'rich') if each in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert done.stdout.split() == ["mqtt5"]
