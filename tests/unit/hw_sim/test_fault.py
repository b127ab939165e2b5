"""What a fault's parameters may be, and when it is on."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_sim.catalogue import FAULTS
from hw_sim.duration import DurationError, seconds
from hw_sim.fault import Fault, FaultError, Parameter, share


@pytest.mark.parametrize(
    ("text", "expected"), [("250ms", 0.25), ("40s", 40.0), ("1.5min", 90.0), ("1h", 3600.0), ("0s", 0.0)]
)
def test_a_duration_has_a_unit(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [("40", "40s for seconds"), ("4d", "no unit 'd'; one of ms, s, min, h"), ("s", "such as")],
)
def test_a_wrong_duration_says_what_is_right(text, says):
    with pytest.raises(DurationError, match=says):
        seconds(text)


@given(st.integers(0, 10**7))
def test_a_duration_falls_on_the_step_that_it_names(steps):
    at_s = round(steps * 0.01, 9)
    assert seconds(f"{steps * 10}ms") == seconds(f"{steps / 100:.2f}s") == at_s
    assert seconds(f"{steps / 6000:.12f}min") == seconds(f"{steps / 360_000:.15f}h") == at_s


@pytest.mark.parametrize(
    ("parameter", "text", "value"),
    [
        (Parameter("", "1"), "2.5", 2.5),
        (Parameter("", "1", "count"), "3", 3),
        (Parameter("", "1", "time"), "250ms", 0.25),
        (Parameter("", "1", "time"), "0s", 0.0),
        (Parameter("", "1", "size"), "-2.5", "-2.5"),
        (Parameter("", "1", "size"), "6sd", "6sd"),
        (Parameter("", "1", "size"), "1e-3sd", "1e-3sd"),
        (Parameter("", "a", "choice", ("a", "b")), "b", "b"),
        (Parameter("", "", "channel"), "", ""),
        (Parameter("", "", "wire"), "plc", "plc"),
    ],
)
def test_a_parameter_reads_what_was_written(parameter, text, value):
    assert parameter.read(text) == value


@pytest.mark.parametrize(
    ("parameter", "text", "says"),
    [
        (Parameter("", "1"), "much", "'much' is no number"),
        (Parameter("", "1"), "-1", "-1 is not between 0 and inf"),
        (Parameter("", "1"), "nan", "nan is not between 0 and inf"),
        (Parameter("", "1"), "inf", "inf is not between 0 and inf"),
        (Parameter("", "1", low=1.0, high=5.0), "6", "6 is not between 1 and 5"),
        (Parameter("", "1", "count"), "1.5", "1.5 is no whole number"),
        (Parameter("", "1", "count"), "inf", "inf is not between 0 and inf"),
        (Parameter("", "1", "count", low=-1.0, high=65_535.0), "65536", "is not between -1 and 65535"),
        (Parameter("", "1s", "time"), "4", "has no unit"),
        (Parameter("", "1s", "time", low=0.001), "0s", "0s is not between 0.001 s and inf s"),
        (Parameter("", "1", "size"), "6dB", "is no size, such as 2.5 in the channel's unit, or 6sd"),
        (Parameter("", "1", "size"), "", "is no size"),
        (Parameter("", "a", "choice", ("a", "b")), "c", "'c' is not one of a, b"),
    ],
)
def test_a_wrong_parameter_says_what_is_right(parameter, text, says):
    with pytest.raises(FaultError) as error:
        parameter.read(text)
    assert says in str(error.value)


@pytest.mark.parametrize("name", FAULTS)
def test_every_default_can_be_read_and_every_row_says_what_it_does(name):
    kind = FAULTS[name]
    for parameter in kind.parameters.values():
        parameter.read(parameter.default)
        assert parameter.means
    assert kind.does
    assert (kind.stress is not None, bool(kind.strains)) == ((kind.where == "plant",) * 2)
    assert (kind.distort is not None) == (kind.where == "sensor")
    assert (kind.wire != "") == (kind.where == "wire") == ("." in name)
    assert kind.short == name.rpartition(".")[2]


@pytest.mark.parametrize("name", [name for name, kind in FAULTS.items() if "every" in kind.parameters])
def test_nothing_comes_all_the_time_of_no_time(name):
    with pytest.raises(FaultError):
        FAULTS[name].parameters["every"].read(
            "0s" if FAULTS[name].parameters["every"].kind == "time" else "0"
        )


def test_a_fault_is_on_from_its_onset_until_before_its_end():
    fault = Fault(FAULTS["stuck"], 1.0, 2.0, {}, ("count",))
    assert [fault.active(at_s) for at_s in (0.99, 1.0, 1.99, 2.0)] == [False, True, True, False]
    assert Fault(FAULTS["stuck"], 1.0, None, {}, ("count",)).active(1e9)


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_ramp_goes_from_nothing_to_all(since_s, ramp_s):
    assert 0 <= share(since_s, ramp_s) <= 1
    assert share(ramp_s, ramp_s) == 1
    assert share(0.0, ramp_s) == (0.0 if ramp_s else 1.0)
    assert math.isfinite(share(since_s, 0.0))
