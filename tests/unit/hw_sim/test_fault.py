import pytest

from hw_sim.duration import DurationError, seconds
from hw_sim.fault import DEVICES, FAULTS, FaultError, parse, parse_all
from hw_sim.plant import CHANNELS


@pytest.mark.parametrize(
    ("text", "expected"), [("250ms", 0.25), ("40s", 40.0), ("1.5min", 90.0), ("1h", 3600.0), ("0s", 0.0)]
)
def test_a_duration_has_a_unit(text, expected):
    assert seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "says"),
    [("40", "40s for seconds"), ("4d", "no unit 'd'; one of ms, s, min, h"), ("s", "such as")],
)
def test_a_wrong_duration_says_what_is_right(text, says):
    with pytest.raises(DurationError, match=says):
        seconds(text)


def test_a_fault_is_a_name_and_an_onset():
    fault = parse("bearing_wear@40s")
    assert (fault.name, fault.onset_s, fault.end_s, fault.parameters) == ("bearing_wear", 40.0, None, {})
    assert fault.channels == ("vib.x", "vib.y")


def test_a_fault_may_have_an_end_and_parameters():
    fault = parse("source_down@30s..1min:device=plc")
    assert (fault.onset_s, fault.end_s, fault.parameters) == (30.0, 60.0, {"device": "plc"})
    assert fault.downed_devices == ("plc",)
    assert fault.channels == tuple(name for name in CHANNELS if name.startswith("plc."))


def test_parameters_have_defaults():
    assert parse("sensor_stuck@20s").channels == ("plc.pressure",)
    assert parse("sensor_stuck@20s:channel=plc.flow").channels == ("plc.flow",)
    assert parse("source_down@20s").downed_devices == ("motor",)


def test_a_fault_is_on_from_its_onset_until_before_its_end():
    fault = parse("blockage@10s..20s")
    assert [fault.active(at) for at in (9.99, 10.0, 19.99, 20.0)] == [False, True, True, False]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("bearing_waer@40s", r"no fault 'bearing_waer'; there are bearing_wear, blockage,"),
        ("blockage", r"does not say when; write blockage@40s"),
        ("blockage@", r"is no duration"),
        ("blockage@40", r"'40' has no unit; write 40s"),
        ("blockage@40s..", r"is no duration"),
        ("blockage@40s..30s", r"ends before it begins"),
        ("blockage@40s:depth=3", r"blockage has no parameter 'depth'; it has none"),
        ("source_down@40s:devise=plc", r"no parameter 'devise'; it has device"),
        ("source_down@40s:device", r"write device=motor"),
        ("source_down@40s:device=pcl", r"no device 'pcl'; there are motor, plc, drive, vib"),
        ("source_down@40s:device=plc,device=vib", r"given twice"),
        ("source_down@40s:", r"no parameter ''"),
        ("sensor_stuck@40s:channel=plc.presure", r"no channel 'plc.presure'; there are .*plc.pressure"),
    ],
)
def test_a_wrong_fault_says_what_is_wrong_and_what_is_known(text, says):
    with pytest.raises(FaultError, match=says):
        parse(text)


def test_none_is_no_fault_and_stands_alone():
    assert parse_all(["none"]) == parse_all([]) == ()
    with pytest.raises(FaultError, match="exclude each other"):
        parse_all(["none", "blockage@1s"])


@pytest.mark.parametrize("name", FAULTS)
def test_every_kind_works_in_one_place_and_names_real_channels(name):
    kind = FAULTS[name]
    assert [kind.stress, kind.sticks, kind.takes_down].count(None) == 2
    assert set(kind.channels(kind.defaults)) <= set(CHANNELS)
    assert kind.does


def test_every_channel_is_of_a_device():
    assert DEVICES == ("motor", "plc", "drive", "vib")
