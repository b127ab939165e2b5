"""Columns find their channels by name, or are told; what is unclear is left alone."""

import pytest

from dxad.errors import ConfigError
from dxad.recording.columns import match

CHANNELS = ["plc.flow", "plc.level", "vib.level", "vib.volume_flow_rate"]


def test_an_id_a_lone_name_and_a_name_spelt_otherwise_are_found():
    found = match(["plc.flow", "Volume Flow-Rate", "note"], CHANNELS, {})
    assert found.column_of == {"plc.flow": "plc.flow", "vib.volume_flow_rate": "Volume Flow-Rate"}
    assert found.ignored == ("note",)
    assert found.missing == ("plc.level", "vib.level")


def test_a_name_that_two_sources_have_is_nobody_s():
    found = match(["level", "flow"], CHANNELS, {})
    assert found.column_of == {"plc.flow": "flow"}
    assert found.ignored == ("level",)


def test_what_is_told_goes_before_what_is_found():
    found = match(["flow", "other"], CHANNELS, {"other": "plc.flow"})
    assert found.column_of == {"plc.flow": "other"}


@pytest.mark.parametrize(
    ("columns", "given", "message"),
    [
        (["flow"], {"flo": "plc.flow"}, r"--map flo=plc.flow: no column 'flo'; did you mean 'flow'\?"),
        (["flow"], {"flow": "plc.flw"}, r"no channel 'plc.flw'; did you mean 'plc.flow'\?"),
        (["a", "b"], {"a": "plc.flow", "b": "plc.flow"}, "plc.flow is column 'a' already"),
        (["x", "y"], {}, "none of the columns is a channel"),
    ],
)
def test_what_cannot_be_is_refused_by_name(columns, given, message):
    with pytest.raises(ConfigError, match=message):
        match(columns, CHANNELS, given)
