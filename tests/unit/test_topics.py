"""A sink never publishes what a source reads; a configuration in which it might is refused."""

from pathlib import Path

import pytest

from dxad import config
from dxad.errors import ConfigError

SOURCE = """
[gateway]
id = "gw3"
[sources.motor]
type = "mqtt"
url = "{url}"
period = "1s"
topic = "{read}"
channels = {{ a = {{}} }}
[pipelines.p]
channels = ["motor.a"]
model = {{ type = "zscore" }}
[sinks.out]
type = "mqtt"
url = "mqtt://localhost"
topic = "{published}"
status = "{status}"
"""


def loaded(tmp_path: Path, **settings: str) -> config.Config:
    defaults = {"url": "mqtt://127.0.0.1:1883", "read": "plant/motor", "published": "dxad/x", "status": ""}
    file = tmp_path / "dxad.toml"
    file.write_text(SOURCE.format(**{**defaults, **settings}))
    return config.load(file)


@pytest.mark.parametrize(
    ("read", "published"),
    [
        ("plant/motor", "plant/motor"),
        ("plant/#", "plant/{type}"),
        ("#", "dxad/{gateway}/{lane}/{type}"),
        ("plant/+/a", "plant/{lane}/a"),
        ("dxad/gw3/x", "dxad/{gateway}/x"),
        ("plant/pump-critical", "plant/pump-{lane}"),
        ("plant/{channel}", "{pipeline}/a"),
    ],
)
def test_a_topic_that_a_source_reads_is_refused(tmp_path, read, published):
    with pytest.raises(ConfigError) as told:
        loaded(tmp_path, read=read, published=published)
    (problem,) = told.value.problems
    assert problem.key == "sinks.out.topic"
    assert problem.where.endswith("dxad.toml:16")
    assert "may be a topic that sources.motor reads" in problem.message


def test_the_status_likewise(tmp_path):
    with pytest.raises(ConfigError, match=r"sinks\.out\.status: 'dxad/{gateway}/status' may be"):
        loaded(tmp_path, read="dxad/gw3/status", status="dxad/{gateway}/status")


@pytest.mark.parametrize(
    "settings",
    [
        {"read": "plant/motor", "published": "plant/motor/{type}"},
        {"read": "dxad/gw4/x", "published": "dxad/{gateway}/x"},
        {"read": "plant/motor", "published": "plant/pump-{lane}"},
        {"url": "mqtt://another.example", "published": "plant/motor"},
        {"url": "mqtt://127.0.0.1:1884", "published": "plant/motor"},
        {"read": "#", "url": "mqtt://another.example"},
    ],
)
def test_any_other_is_taken(tmp_path, settings):
    assert loaded(tmp_path, **settings).sinks


def test_two_sinks_of_one_broker_do_not_speak_of_one_status(tmp_path):
    text = SOURCE.format(url="mqtt://other", read="x", published="a", status="dxad/s")
    file = tmp_path / "dxad.toml"
    file.write_text(text + '[sinks.two]\ntype = "mqtt"\nurl = "mqtt://127.0.0.1"\nstatus = "dxad/s"\n')
    with pytest.raises(ConfigError, match=r"sinks\.two\.status: 'dxad/s' is what sinks\.out says, too"):
        config.load(file)
