"""Faults as they are written, on a bench with a machine of two sensors and a wire each of two protocols."""

import re

import pytest

from hw_sim.catalogue import FAULTS, Known, make, parse, parse_all
from hw_sim.fault import FaultError
from hw_sim.modbus import faults as modbus
from hw_sim.mqtt import faults as mqtt
from hw_sim.opcua import faults as opcua
from hw_sim.plant import Channel
from hw_sim.serial import faults as serial

KNOWN = Known(
    channels={name: Channel("bar") for name in ("plc.flow", "plc.pressure", "vib.x", "vib.y")},
    plants={
        "heater": {"leak": ("plc.pressure",)},
        "pump": {
            "wear": ("vib.x", "vib.y"),
            "restriction": ("plc.flow", "plc.pressure"),
            "leak": ("plc.flow",),
        },
    },
    devices={"plc": ("plc.flow", "plc.pressure"), "vib": ("vib.x", "vib.y"), "old": ("vib.x",)},
    wires={"bus": ("modbus", ("plc",)), "tty": ("serial", ("vib",)), "tty2": ("serial", ("old",))},
)


def test_a_fault_is_a_name_and_an_onset():
    fault = parse("bearing_wear@40s", KNOWN)
    assert (fault.name, fault.onset_s, fault.end_s) == ("bearing_wear", 40.0, None)
    assert fault.settings == {"plant": "pump", "size": 0.14, "ramp": 10.0, "race": "outer"}
    assert (fault.channels, fault.plant, fault.wires) == (("vib.x", "vib.y"), "pump", ())


def test_a_fault_may_have_an_end_and_parameters():
    fault = parse("source_down@30s..1min:device=plc", KNOWN)
    assert (fault.onset_s, fault.end_s, fault.settings) == (30.0, 60.0, {"device": "plc"})
    assert (fault.channels, fault.wires) == (("plc.flow", "plc.pressure"), ("bus",))


def test_what_is_not_named_is_the_first_that_it_can_be():
    assert parse("stuck@20s", KNOWN).channels == ("plc.flow",)
    assert parse("stuck@20s:channel=vib.y", KNOWN).channels == ("vib.y",)
    assert parse("leak@20s", KNOWN).plant == "heater"
    assert parse("leak@20s:plant=pump", KNOWN).channels == ("plc.flow",)
    assert parse("blockage@20s", KNOWN).plant == "pump", "the heater has nothing that clogs"
    assert parse("source_down@20s", KNOWN).settings == {"device": "plc"}


def test_a_fault_of_a_wire_concerns_all_of_its_kind_unless_one_is_named():
    fault = parse("serial.stall@1s", KNOWN)
    assert (fault.wires, fault.channels) == (("tty", "tty2"), ("vib.x", "vib.y"))
    fault = parse("serial.stall@1s:wire=tty2", KNOWN)
    assert (fault.wires, fault.channels) == (("tty2",), ("vib.x",))
    fault = parse("serial.stall@1s:device=vib", KNOWN)
    assert (fault.wires, fault.channels) == (("tty",), ("vib.x", "vib.y"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("bearing_waer@40s", "no fault 'bearing_waer'; there are bearing_wear, blockage,"),
        ("blockage", "does not say when; write blockage@40s"),
        ("blockage@", "is no duration"),
        ("blockage@40", "'40' has no unit; write 40s"),
        ("blockage@40s..", "is no duration"),
        ("blockage@40s..30s", "ends before it begins"),
        ("blockage@40s..40s", "ends before it begins"),
        ("blockage@40s:depth=3", "blockage has no parameter 'depth'; it has plant, size, ramp"),
        ("blockage@40s:ramp=3", "blockage: ramp: '3' has no unit"),
        ("blockage@40s:ramp=0s", "blockage: ramp: 0s is not between"),
        ("blockage@40s:plant=heater", "no plant 'heater'; there are pump"),
        ("source_down@40s:devise=plc", "no parameter 'devise'; it has device"),
        ("source_down@40s:device", "write device=VALUE"),
        ("source_down@40s:device=pcl", "no device 'pcl'; there are plc, vib, old"),
        ("source_down@40s:device=plc,device=vib", "given twice"),
        ("source_down@40s:", "is given no value"),
        ("stuck@40s:channel=plc.presure", "no channel 'plc.presure'; there are .*plc.pressure"),
        ("serial.stall@1s:wire=bus", "no wire 'bus'; there are tty, tty2"),
        ("serial.stall@1s:device=plc", "no device 'plc'; there are vib, old"),
        ("serial.stall@1s:wire=tty,device=old", "no device 'old'; there are vib"),
    ],
)
def test_a_wrong_fault_says_what_is_wrong_and_what_is_known(text, says):
    with pytest.raises(FaultError, match=says):
        parse(text, KNOWN)


def test_a_fault_needs_something_to_break():
    with pytest.raises(FaultError, match="the scenario has no wire of type serial"):
        parse("serial.stall@1s", Known({}, {}))
    with pytest.raises(FaultError, match="stuck: the scenario has no channel for it"):
        parse("stuck@1s", Known({}, {}))
    with pytest.raises(FaultError, match="leak: the scenario has no plant for it"):
        parse("leak@1s", Known({}, {"pump": {"wear": ()}}))


def test_a_fault_without_end_is_made_as_one_from_a_file_is():
    assert (
        make("stuck", 3.0, None, {"channel": "vib.x"}, KNOWN).settings
        == parse("stuck@3s:channel=vib.x", KNOWN).settings
    )


def test_none_is_no_fault_and_stands_alone():
    assert parse_all(["none"], KNOWN) == parse_all([], KNOWN) == ()
    with pytest.raises(FaultError, match="exclude each other"):
        parse_all(["none", "blockage@1s"], KNOWN)
    assert [fault.name for fault in parse_all(["blockage@1s", "stuck@2s"], KNOWN)] == ["blockage", "stuck"]


def test_every_row_has_a_name_of_its_own_and_stands_in_its_wire():
    rows = {"mqtt": mqtt.FAULTS, "modbus": modbus.FAULTS, "opcua": opcua.FAULTS, "serial": serial.FAULTS}
    for wire, kinds in rows.items():
        for kind in kinds:
            assert FAULTS[kind.name] is kind, "no other has its name"
            assert kind.wire == wire
            assert re.fullmatch(rf"{wire}\.[a-z0-9_]+", kind.name)
