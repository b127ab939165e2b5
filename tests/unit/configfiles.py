"""Configurations in files, and what is wrong with them."""

import textwrap
from pathlib import Path

import pytest

from dxad.config import load
from dxad.errors import ConfigError

__all__ = ["SOUND", "problems_of", "without", "write"]


SOUND = """\
[gateway]
id = "plant7-gw3"

[sources.plc]
type = "modbus"
url = "tcp://127.0.0.1:5020"
period = "100ms"
[sources.plc.channels]
flow     = { register = "input:30", encoding = "float32", unit = "l/min", range = [0, 400] }
pressure = { register = "holding:12", scale = 0.01, unit = "bar" }

[sources.vib]
type = "serial"
port = "/dev/ttyUSB0"
period = "10ms"
decode = { kind = "csv", columns = ["x", "y", "z"] }

[pipelines.pump]
channels = ["plc.flow", "plc.pressure", "vib.*"]
period = "100ms"
window = "5s"
features = [ { type = "summarize", channels = ["vib.*"], stat = "rms", every = "100ms" } ]
transforms = [ { type = "smooth", channels = ["vib.*"], span = "1s" } ]
model = { type = "tflite", path = "models/pump" }
alarm = { limit = "auto", on_delay = "1s", off_delay = "30s", severity = "high" }

[outbox]
max_size = "256MiB"

[sinks.reasoning]
type = "http"
url = "http://127.0.0.1:8900/events"
"""


def write(folder: Path, text: str, name: str = "dxad.toml") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def problems_of(path: Path) -> list[tuple[str, str, str]]:
    """What is wrong, with the place relative to the file's folder."""
    with pytest.raises(ConfigError) as refused:
        load(path)
    return [
        (str(Path(each.where).relative_to(path.parent)), each.key, each.message)
        for each in refused.value.problems
    ]


def without(path: Path, *lines: str) -> Path:
    """The file without the lines that begin so."""
    kept = [line for line in path.read_text().splitlines() if not line.startswith(lines)]
    path.write_text("\n".join(kept))
    return path
