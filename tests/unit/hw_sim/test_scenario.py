import math
import tomllib
from pathlib import Path

import pytest

from hw_sim.catalogue import FAULTS
from hw_sim.fault import FaultError
from hw_sim.scenario import Origin, ScenarioError, load, of, shipped

WHOLE = """\
seed = 7
speed = "max"
duration = "1h"

[plants.pump]
kind = "pump_skid"
[plants.other]
kind = "pump_skid"
prefix = "b."

[wires.box]
type = "mqtt"
port = 0
[wires.box.devices.motor]
topic = "plant/motor"
period = "100ms"
fields = { current = "motor.current", flow = "b.plc.flow" }

[[faults]]
fault = "drift"
channel = "b.plc.flow"
onset = "10s"
end = "1min"
size = 12.5
[[faults]]
fault = "source_down"
device = "motor"
"""


def written(tmp_path, text, *changes):
    """A file with this text, after some replacements."""
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "plant.toml"
    path.write_text(text)
    return path


def mistakes(path):
    with pytest.raises(ScenarioError) as caught:
        load(str(path)).bench()
    return [line.removeprefix(str(path.parent) + "/") for line in str(caught.value).splitlines()]


def test_a_scenario_says_which_plants_wires_and_faults_there_are(tmp_path):
    scenario = load(str(written(tmp_path, WHOLE)))
    assert (scenario.name, scenario.seed, scenario.speed, scenario.duration_s) == (
        "plant",
        7,
        math.inf,
        3600.0,
    )
    bench, known = scenario.bench()
    assert [rig.name for rig in bench.rigs] == ["pump", "other"]
    assert known.devices == {"motor": ("motor.current", "b.plc.flow")}
    assert known.wires == {"box": ("mqtt", ("motor",))}
    drift, down = bench.faults
    assert (drift.name, drift.onset_s, drift.end_s, drift.channels) == ("drift", 10.0, 60.0, ("b.plc.flow",))
    assert drift.settings["size"] == "12.5"
    assert (down.onset_s, down.end_s, down.wires) == (0.0, None, ("box",))


def test_further_faults_come_from_the_command_line(tmp_path):
    scenario = load(str(written(tmp_path, WHOLE)))
    bench, _ = scenario.bench(["stuck@5s:channel=b.plc.valve"])
    assert [fault.name for fault in bench.faults] == ["drift", "source_down", "stuck"]
    with pytest.raises(FaultError, match=r"no channel 'plc\.vave'"):
        scenario.bench(["stuck@5s:channel=plc.vave"])


def test_two_plants_of_a_kind_do_not_move_alike_and_the_first_is_as_it_is_alone(tmp_path):
    path = written(tmp_path, WHOLE)
    bench, _ = load(str(path)).bench()
    alone, _ = load("pump_skid", ["seed=7"]).bench()
    assert bench.readings["motor.current"] == alone.readings["motor.current"]
    assert bench.readings["b.motor.current"] != bench.readings["motor.current"]


def test_every_mistake_is_told_with_file_line_and_key(tmp_path):
    seed, span = ("seed = 7", "sed = 7"), ('"1h"', '"1 hour"')
    topic, prefix = ('topic = "plant/motor"', "topik = 1"), ('prefix = "b."', 'prefix = "b"')
    path = written(tmp_path, WHOLE, seed, span, topic, prefix)
    told = mistakes(path)
    assert "plant.toml:1: sed: there is no such key; is it seed?" in told
    assert any(line.startswith("plant.toml:3: duration: '1 hour' is no duration") for line in told)
    assert any(line.startswith("plant.toml:9: plants.other.prefix: ") for line in told)
    assert any(line.startswith("plant.toml:15: wires.box.devices.motor.topik: ") for line in told)
    assert any(line.endswith("wires.box.devices.motor.topic: is missing") for line in told)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"pump_skid"\nprefix', '"pmp"\nprefix', "8: plants.other.kind: no kind 'pmp'; there are cold_store"),
        ('type = "mqtt"', 'type = "can"', "12: wires.box.type: no type 'can'; there are mqtt, modbus"),
        ('type = "mqtt"\n', "", "wires.box.type: is missing; one of mqtt"),
        (
            'type = "mqtt"',
            'typ = "mqtt"',
            "wires.box.type: is missing; one of mqtt, modbus, opcua, serial; there is a",
        ),
        (
            "[wires.box.devices",
            "[wires.box.devicez",
            "14: wires.box.devicez: there is no such key; is it devices?",
        ),
        ('prefix = "b."', "", "7: plants.other.prefix: plant pump has a channel motor.current, too"),
        (
            '"b.plc.flow" }',
            '"b.plc.flwo" }',
            "17: wires.box.devices.motor.fields.flow: shows 'b.plc.flwo', which no plant has; is it",
        ),
        ("period =", "perod =", "16: wires.box.devices.motor.perod: there is no such key; is it period?"),
        ('device = "motor"', 'device = "mtr"', "25: faults.1: source_down: no device 'mtr'; there are motor"),
        ("size = 12.5", "sise = 12.5", "19: faults.0: drift has no parameter 'sise'; it has channel, size"),
        ('onset = "10s"', 'onset = "10"', "19: faults.0: '10' has no unit; write 10s"),
        ('onset = "10s"', 'onset = "2min"', "19: faults.0: drift ends before it begins"),
        ('fault = "drift"', 'fault = "drft"', "19: faults.0: no fault 'drft'; there are"),
        ("port = 0", "port = true", "wires.box: port is true, which is no number"),
        ("speed =", "speed = = ", "Invalid value (at line 2, column 9)"),
    ],
)
def test_a_mistake_says_what_is_right(tmp_path, old, new, says):
    told = mistakes(written(tmp_path, WHOLE, (old, new)))
    assert any(says in each for each in told)


def test_a_device_name_is_used_once(tmp_path):
    wires = WHOLE[WHOLE.index("[wires") : WHOLE.index("[[faults]]")]
    (told,) = mistakes(written(tmp_path, WHOLE, (wires, wires + wires.replace("wires.box", "wires.bag"))))
    assert "wires.bag.devices.motor: wire box has a device of that name" in told


def test_a_key_can_be_changed_from_outside(tmp_path):
    path = str(written(tmp_path, WHOLE))
    scenario = load(path, ["wires.box.port=1234", "seed=8", "wires.box.devices.motor.topic=here/and/there"])
    assert scenario.seed == 8
    box = scenario.wires["box"]
    assert (box.port, box.devices["motor"].topic) == (1234, "here/and/there")
    with pytest.raises(ScenarioError, match=r"wires.box.prt: there is no such key; is it port\?"):
        load(path, ["wires.box.prt=1"])
    with pytest.raises(ScenarioError, match="'seed' is not KEY=VALUE"):
        load(path, ["seed"])


def test_what_is_not_there_is_told_with_what_is():
    with pytest.raises(
        ScenarioError, match=r"no such file, and no scenario of that name; there are .*pump_skid"
    ):
        load("pump_skit")


@pytest.mark.parametrize("name", sorted(shipped()))
def test_what_is_shipped_is_right_and_says_what_it_is(name):
    assert shipped()[name].endswith(".")
    bench, known = load(name).bench()
    assert bench.channels
    assert known.wires


def test_a_scenario_can_be_made_in_memory():
    scenario = of(tomllib.loads(WHOLE), Origin("memory"))
    assert scenario.name == "memory"
    with pytest.raises(ScenarioError, match=r"^memory: sed: there is no such key"):
        of({"sed": 1}, Origin("memory"))


def test_every_fault_of_the_catalogue_says_what_it_does():
    for name, kind in FAULTS.items():
        assert kind.name == name
        assert kind.does
        for parameter in kind.parameters.values():
            assert parameter.means
            parameter.read(parameter.default)


def test_the_shipped_files_are_in_the_package():
    folder = Path(__file__).parents[3] / "hw_sim" / "scenarios"
    assert {path.stem for path in folder.glob("*.toml")} == set(shipped())
