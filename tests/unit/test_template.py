"""A pipeline that is written once for many machines is a pipeline for each."""

from pathlib import Path

import pytest

from dxad import config
from dxad.errors import ConfigError

SOURCES = """
[sources.plc]
type = "modbus"
url = "tcp://127.0.0.1:5020"
period = "100ms"
[sources.plc.channels]
flow_a  = { register = "input:0", encoding = "float32" }
power_a = { register = "input:2", encoding = "float32" }
flow_b  = { register = "input:4", encoding = "float32" }
power_b = { register = "input:6", encoding = "float32" }
"""


def load(tmp_path: Path, pipelines: str) -> config.Config:
    path = tmp_path / "dxad.toml"
    path.write_text(SOURCES + pipelines)
    return config.load(path)


@pytest.mark.parametrize("asked", ['["a", "b"]', '"plc.flow_*"'])
def test_each_machine_has_its_own_channels_and_its_own_model(tmp_path, asked):
    found = load(
        tmp_path,
        f"""
[pipelines.pump]
for_each = {asked}
channels = ["plc.*_{{each}}"]
required = ["plc.flow_{{each}}"]
model = {{ type = "tflite", path = "models/pump" }}
[pipelines.other]
channels = ["plc.*"]
model = {{ type = "zscore" }}
""",
    )
    assert list(found.pipelines) == ["pump-a", "pump-b", "other"]
    for each in "ab":
        pipeline = found.pipelines[f"pump-{each}"]
        assert pipeline.channels == (f"plc.*_{each}",)
        assert pipeline.required == (f"plc.flow_{each}",)
        assert pipeline.model.path == Path(f"models/pump/{each}")  # type: ignore[attr-defined]


def test_a_path_that_names_the_machine_is_taken_as_it_is(tmp_path):
    found = load(
        tmp_path,
        """
[pipelines.pump]
for_each = ["a"]
channels = ["plc.*_{each}"]
model = { type = "tflite", path = "shelf-{each}/pump" }
""",
    )
    assert found.pipelines["pump-a"].model.path == Path("shelf-a/pump")  # type: ignore[attr-defined]


def test_a_mistake_in_a_template_is_told_with_its_line(tmp_path):
    with pytest.raises(ConfigError) as told:
        load(
            tmp_path,
            '[pipelines.pump]\nfor_each = ["a"]\nmodel = { type = "zscore" }\n'
            'channels = ["plc.flw_{each}"]\n',
        )
    (problem,) = told.value.problems
    assert problem.where == f"{tmp_path / 'dxad.toml'}:14"
    assert problem.key == "pipelines.pump-a.channels.0"
    assert "did you mean 'plc.flow_a'?" in problem.message


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("[]", "expected a list of names"),
        ("3", "expected a list of names"),
        ('"plc.flow"', 'a pattern with one "*"'),
        ('"plc.*_*"', 'a pattern with one "*"'),
        ('"plc.level_*"', "no channel matches 'plc.level_*'"),
        ('["a", "a"]', "a name stands in it twice"),
        ('["../a"]', "'../a' is no name"),
    ],
)
def test_what_names_no_machines_is_refused(tmp_path, asked, message):
    with pytest.raises(ConfigError) as told:
        load(
            tmp_path,
            f'[pipelines.pump]\nfor_each = {asked}\nchannels = ["plc.*"]\nmodel = {{ type = "zscore" }}\n',
        )
    assert message in str(told.value)
    assert "pipelines.pump.for_each" in str(told.value)


def test_two_pipelines_of_one_name_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="there is a pipeline pump-a already"):
        load(
            tmp_path,
            """
[pipelines.pump]
for_each = ["a"]
channels = ["plc.*"]
model = { type = "zscore" }
[pipelines.pump-a]
channels = ["plc.*"]
model = { type = "zscore" }
""",
        )
