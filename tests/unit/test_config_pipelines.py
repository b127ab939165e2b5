"""Models, alarms and limits of pipelines: every mistake is told at its key."""

from pathlib import Path

import pytest

from dxad.config import load
from tests.unit.configfiles import SOUND, problems_of, write


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "dxad.toml"
    path.write_text(SOUND)
    return path


@pytest.mark.parametrize(
    ("keys", "where", "message"),
    [
        (
            (
                '[pipelines.other]\nchannels = ["plc.flow"]\nperiod = "100ms"\n'
                'model = { type = "tflite", path = "models/x/../pump" }\n'
            ),
            "pipelines.other.model.path",
            "models/x/../pump is that of pipeline 'pump' too; one would replace the other's model",
        ),
        (
            (
                '[pipelines.other]\nchannels = ["plc.flow"]\nperiod = "100ms"\nlearn = {}\n'
                'model = { type = "tflite", path = "o", require_signature = true, public_key = "k.pub" }\n'
            ),
            "pipelines.other.model.require_signature",
            "nobody signs what is learned here; leave out this, or learn",
        ),
        (
            (
                '[pipelines.other]\nchannels = ["plc.flow"]\nperiod = "100ms"\n'
                'model = { type = "tflite", path = "o", require_signature = true }\n'
            ),
            "pipelines.other.model",
            "require_signature wants the public_key that bundles are signed by",
        ),
    ],
)
def test_models_that_cannot_be_as_they_are_asked_for(keys, where, message, file):
    file.write_text(SOUND + keys)
    (found,) = problems_of(file)
    assert found[1:] == (where, message)


ALARMED = """\
[sources.plc]
type = "modbus"
url = "tcp://127.0.0.1:5020"
period = "100ms"
[sources.plc.channels]
flow = { register = "input:30", encoding = "float32" }
running = { register = "coil:0", encoding = "bool" }

[pipelines.pump]
channels = ["plc.*"]
"""


class TestAlarms:
    def test_a_pipeline_with_limits_needs_no_model(self, tmp_path):
        alarms = '[[pipelines.pump.alarms]]\nchannel = "plc.flow"\nhigh = 8\ninhibit = "plc.running == 0"\n'
        found = load(write(tmp_path, ALARMED + alarms)).pipelines["pump"]
        assert found.model is None
        assert [(each.title, each.kinds) for each in found.alarms] == [("plc.flow", ("high",))]

    @pytest.mark.parametrize(
        ("alarms", "key", "text"),
        [
            ("", "model", "is missing"),
            ("alarms = []", "model", "is missing"),
            ('alarms = [{ channel = "plc.flaw", high = 8 }]', "alarms.0.channel", "did you mean 'plc.flow'?"),
            ('alarms = [{ channel = "plc.flow" }]', "alarms.0", "give at least one of low_low, low, high"),
            (
                'alarms = [{ channel = "plc.flow", low = 8, high = 8 }]',
                "alarms.0",
                "each above the one before",
            ),
            ('alarms = [{ channel = "plc.flow", high = nan }]', "alarms.0.high", "finite number"),
            (
                'alarms = [{ channel = "plc.flow", low = 7, high = 8, hysteresis = 0.5 }]',
                "alarms.0",
                "hysteresis leaves no room",
            ),
            ('alarms = [{ channel = "plc.flow", rate = 0 }]', "alarms.0.rate", "greater than 0"),
            (
                'alarms = [{ channel = "plc.flow", high = 8, on = "6 of 5" }]',
                "alarms.0.on",
                "at most the second",
            ),
            ('alarms = [{ channel = "plc.flow", high = 8, on = "often" }]', "alarms.0.on", '"3 of 5"'),
            (
                'alarms = [{ channel = "plc.flow", high = 8, on = "2 of 5", on_delay = "1s" }]',
                "alarms.0",
                "not both",
            ),
            (
                'alarms = [{ channel = "plc.flow", high = 8 }, { channel = "plc.flow", low = 1 }]',
                "alarms.1",
                "there is an alarm 'plc.flow' already",
            ),
            (
                'alarms = [{ channel = "plc.flow", high = 8, inhibit = "plc.runs == 0" }]',
                "alarms.0.inhibit",
                "no channel 'plc.runs'",
            ),
            ('alarms = [{ channel = "plc.flow", high = 8, inhibit = "1 +" }]', "alarms.0.inhibit", "column"),
            (
                'alarms = [{ channel = "plc.flow", high = 8 }]\nalarm = { inhibit = "plc.x > 1" }',
                "alarm.inhibit",
                "no channel 'plc.x'",
            ),
            (
                'alarms = [{ channel = "plc.flow", high = 8 }]\nlearn = {}',
                "learn",
                "no model that could learn",
            ),
        ],
    )
    def test_each_mistake_is_told_at_its_key(self, tmp_path, alarms, key, text):
        ((_, at, message),) = problems_of(write(tmp_path, f"{ALARMED}{alarms}\n"))
        assert at == f"pipelines.pump.{key}"
        assert text in message


@pytest.mark.parametrize("limit", ["0", "-3", "nan", "true", '"atuo"'])
def test_a_wrong_limit_is_one_mistake_at_its_key(limit, file):
    file.write_text(SOUND.replace('limit = "auto"', f"limit = {limit}"))
    (found,) = problems_of(file)
    assert found[1] == "pipelines.pump.alarm.limit"
    assert 'neither "auto" nor a number above 0' in found[2]
