"""Severity zones: the standard's table, limits of one's own, and a zone that does not flicker."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from pydantic import ValidationError

from dxad.errors import ConfigError
from dxad.plugin import load
from dxad.shape import build, chain, shape_of
from dxad.types import Channel, Rows, Schema, State

PLUGIN = load("transforms", "classify")
PERIOD = 1_000_000_000
SPEED = Schema((Channel("vib.x.rms", "mm/s"),), PERIOD)
LIMITS = (1.4, 2.8, 4.5)


def zones(*values, batch: int = 10_000, **keys) -> list[float]:
    transform = PLUGIN.build(PLUGIN.config(type="classify", **keys))
    transform.outputs(SPEED)
    column = np.array(values, dtype=float)[:, None]
    states = np.where(np.isnan(column), State.BAD, State.HELD).astype(np.uint8)
    parts = []
    for at in range(0, len(column), batch):
        made = transform.apply(Rows(at, PERIOD, column[at : at + batch], states[at : at + batch]))
        assert_array_equal(made.values[:, 0], column[at : at + batch, 0])
        assert_array_equal(made.states[:, 0], made.states[:, 1])
        parts += made.values[:, 1].tolist()
    return parts


def slow(values, hysteresis: float, limits=LIMITS) -> list[float]:
    """Row by row, as one would explain it."""
    zone, found = 0, []
    for value in values:
        if np.isnan(value):
            found.append(np.nan)
            continue
        while zone < 3 and value >= limits[zone]:
            zone += 1
        while zone > 0 and value < limits[zone - 1] * (1 - hysteresis):
            zone -= 1
        found.append(zone)
    return found


@pytest.mark.parametrize(
    ("group", "support", "limits"),
    [
        (1, "rigid", (2.3, 4.5, 7.1)),
        (1, "flexible", (3.5, 7.1, 11.0)),
        (2, "rigid", (1.4, 2.8, 4.5)),
        (2, "flexible", (2.3, 4.5, 7.1)),
    ],
)
def test_the_standard_s_zones_begin_where_its_table_says(group, support, limits):
    around = [each + step for each in limits for step in (-0.01, 0.01)]
    found = zones(0.0, *around, 50.0, standard="iso20816-3", group=group, support=support)
    assert found == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_value_at_a_limit_is_in_the_worse_zone_and_its_sign_does_not_matter():
    assert zones(1.4, -2.8, 4.5, limits=LIMITS) == [1, 2, 3]


def test_a_zone_rises_at_once_and_falls_when_the_value_is_clearly_below():
    values = [1.3, 1.5, 1.35, 1.3, 1.27, 1.25, 1.35, 9.0, 4.2, 4.0, 2.6, 1.0]
    assert zones(*values, limits=LIMITS, hysteresis=0.1) == [0, 1, 1, 1, 1, 0, 0, 3, 3, 2, 2, 0]
    assert zones(*values, limits=LIMITS) == [0, 1, 0, 0, 0, 0, 0, 3, 2, 2, 1, 0]


def test_a_gap_has_no_zone_and_changes_none():
    found = zones(1.5, np.nan, np.nan, 1.35, limits=LIMITS, hysteresis=0.1)
    assert_array_equal(found, [1, np.nan, np.nan, 1])


@given(
    values=st.lists(st.floats(0, 6) | st.just(float("nan")), max_size=70),
    hysteresis=st.sampled_from([0.0, 0.05, 0.4, 0.9]),
    batch=st.integers(1, 40),
)
@settings(max_examples=150, deadline=None)
def test_all_rows_at_once_come_out_as_one_by_one(values, hysteresis, batch):
    expected = slow(values, hysteresis)
    assert_array_equal(zones(*values, limits=LIMITS, hysteresis=hysteresis), expected)
    assert_array_equal(zones(*values, limits=LIMITS, hysteresis=hysteresis, batch=batch), expected)


def test_a_zone_stands_behind_its_channel_and_the_others_stay():
    schema = Schema(
        (Channel("vib.x.rms", "mm/s"), Channel("plc.flow", "l/min"), Channel("vib.y.rms", "mm/s")), PERIOD
    )
    transform = PLUGIN.build(PLUGIN.config(type="classify", channels=["vib.*"], limits=LIMITS))
    declared = transform.outputs(schema)
    assert [(channel.id, channel.unit) for channel in declared.channels] == [
        ("vib.x.rms", "mm/s"),
        ("vib.x.rms.zone", "1"),
        ("plc.flow", "l/min"),
        ("vib.y.rms", "mm/s"),
        ("vib.y.rms.zone", "1"),
    ]
    states = np.array([[State.GOOD, State.HELD, State.UNCERTAIN]], dtype=np.uint8)
    made = transform.apply(Rows(5, PERIOD, np.array([[1.5, 77.0, 5.0]]), states))
    assert_array_equal(made.values, [[1.5, 1, 77, 5, 3]])
    assert_array_equal(made.states, [[State.GOOD, State.GOOD, State.HELD, State.UNCERTAIN, State.UNCERTAIN]])


def test_the_rms_of_a_band_of_a_velocity_becomes_a_zone_of_the_machine():
    spectrum = load("transforms", "spectrum").config(
        type="spectrum", channels=["vib.*"], every="1s", stat=[], bands={"iso": [10, 1000]}
    )
    classify = PLUGIN.config(
        type="classify", channels=["*.band_iso"], standard="iso20816-3", group=2, support="rigid"
    )
    shape = shape_of(
        patterns=["vib.*"], features=[spectrum], transforms=[classify], period=None,
        sources={"vib": Schema((Channel("vib.x", "mm/s"),), 500_000)},
    )  # fmt: skip
    assert [channel.id for channel in shape.outputs.channels] == ["vib.x.band_iso", "vib.x.band_iso.zone"]
    (feature,) = shape.features
    transform = build(feature.section)
    transform.outputs(feature.inputs)
    (zoning,), _ = chain([classify], shape.joined)
    time = np.arange(6000) / 2000
    # A floor that sways outside the band, and a shaft that shakes harder every second.
    velocity = 20 * np.sin(2 * np.pi * 4 * time) + np.sqrt(2) * np.repeat([1, 2, 5], 2000) * np.sin(
        2 * np.pi * 25 * time
    )
    states = np.full((6000, 1), State.GOOD, dtype=np.uint8)
    made = zoning.apply(transform.apply(Rows(0, 500_000, velocity[:, None], states)))
    np.testing.assert_allclose(made.values[:, 0], [1, 2, 5], rtol=1e-6)
    assert_array_equal(made.values[:, 1], [0, 1, 3])


@pytest.mark.parametrize(
    ("unit", "keys", "message"),
    [
        ("g", {"limits": LIMITS}, "'vib.x.rms' is in g, the limits are in mm/s"),
        (
            "",
            {"standard": "iso20816-3", "group": 1, "support": "rigid"},
            "is in no unit, the limits are in mm/s",
        ),
        ("mm/s", {"limits": LIMITS, "unit": "g"}, "is in mm/s, the limits are in g"),
    ],
)
def test_a_channel_in_another_unit_than_the_limits_is_refused(unit, keys, message):
    with pytest.raises(ConfigError, match=message):
        PLUGIN.build(PLUGIN.config(type="classify", **keys)).outputs(
            Schema((Channel("vib.x.rms", unit),), PERIOD)
        )


def test_a_channel_that_has_a_zone_already_gets_no_second_one():
    schema = Schema((Channel("vib.x", "mm/s"), Channel("vib.x.zone", "1")), PERIOD)
    transform = PLUGIN.build(PLUGIN.config(type="classify", channels=["vib.x"], limits=LIMITS))
    with pytest.raises(ConfigError, match=r"there would be two channels 'vib\.x\.zone'"):
        transform.outputs(schema)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "either standard, or limits"),
        ({"standard": "iso20816-3", "limits": LIMITS}, "either standard, or limits"),
        ({"standard": "iso20816-3", "group": 1}, r"group \(1 or 2\) and support"),
        ({"limits": LIMITS, "group": 1}, "without one they mean nothing"),
        ({"limits": (1.0, 1.0, 2.0)}, "limits do not rise"),
        ({"limits": (0.0, 1.0, 2.0)}, "limits do not rise"),
        ({"standard": "iso20816-3", "group": 1, "support": "rigid", "unit": "g"}, "are in mm/s, not in g"),
        ({"standard": "iso10816-3"}, "iso20816-3"),
    ],
)
def test_what_makes_no_sense_is_refused_as_it_is_read(keys, message):
    with pytest.raises(ValidationError, match=message):
        PLUGIN.config(type="classify", **keys)
