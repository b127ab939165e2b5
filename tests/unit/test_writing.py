"""A sink has its file for itself; a configuration in which it has not is refused."""

import pytest

from dxad import config
from dxad.errors import ConfigError

TEXT = """
state_dir = "/var/lib/dxad"
[gateway]
id = "gw3"
[outbox]
path = "box.db"
[sources.motor]
type = "serial"
port = "/dev/null"
period = "1s"
decode = {{ kind = "csv", columns = ["a"] }}
[sinks.one]
type = "file"
path = "one.jsonl"
[sinks.two]
type = "file"
path = "{path}"
"""


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("box.db", "/var/lib/dxad/box.db belongs to the outbox"),
        ("/var/lib/dxad/box.db-wal", "/var/lib/dxad/box.db-wal belongs to the outbox"),
        ("one.jsonl", "/var/lib/dxad/one.jsonl belongs to sinks.one"),
    ],
)
def test_a_file_of_somebody_elses_is_refused(tmp_path, path, told):
    file = tmp_path / "dxad.toml"
    file.write_text(TEXT.format(path=path))
    with pytest.raises(ConfigError, match=f"dxad.toml:17: sinks.two.path: {told}"):
        config.load(file)


def test_another_is_not(tmp_path):
    file = tmp_path / "dxad.toml"
    file.write_text(TEXT.format(path="two.jsonl"))
    assert set(config.load(file).sinks) == {"one", "two"}
