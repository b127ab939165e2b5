"""What a pipeline's rows will look like is known, or refused with the key to blame, before any data."""

import re
from typing import Any

import pytest

from dxad.errors import ConfigError
from dxad.fields import TransformSection
from dxad.plugin import load
from dxad.shape import ShapeError, chain, shape_of
from dxad.types import Channel, Schema

MS = 1_000_000


def section(kind: str, **keys: Any) -> TransformSection:
    return load("transforms", kind).config(type=kind, **keys)


def source(name: str, channels: str, period: int) -> Schema:
    return Schema(tuple(Channel(f"{name}.{each}", "mm/s") for each in channels.split()), period)


SOURCES = {
    "vib": source("vib", "x y z", 10 * MS),
    "plc": source("plc", "flow level", 100 * MS),
    "lab": source("lab", "ph", 1000 * MS),
}


def shape(*patterns: str, features=(), transforms=(), period: int | None = None):
    return shape_of(
        patterns=patterns, features=features, transforms=transforms, period=period, sources=SOURCES
    )


def ids(schema: Schema) -> list[str]:
    return [channel.id for channel in schema.channels]


def test_the_joined_rows_have_the_channels_asked_for_at_the_slowest_source_s_period():
    found = shape("plc.*", "vib.x")
    assert found.joined == found.outputs
    assert found.joined.period == 100 * MS
    assert sorted(ids(found.joined)) == ["plc.flow", "plc.level", "vib.x"]
    assert dict(found.feeds) == {"vib": (0,), "plc": (0, 1)}


def test_a_channel_that_goes_into_a_feature_goes_no_further():
    found = shape("vib.*", "plc.flow", features=[section("summarize", channels=["vib.[xy]"], every="100ms")])
    assert ids(found.joined) == ["vib.z", "plc.flow", "vib.x.rms", "vib.y.rms"]
    (feature,) = found.features
    assert (feature.source, feature.columns) == ("vib", (0, 1))
    assert (feature.inputs.period, feature.outputs.period) == (10 * MS, 100 * MS)


def test_one_feature_over_two_sources_becomes_one_of_each():
    found = shape("vib.x", "plc.flow", features=[section("summarize", channels=["*.*"], every="100ms")])
    assert [each.source for each in found.features] == ["vib", "plc"]
    assert found.feeds == ()


def test_transforms_follow_one_another_and_keep_the_period():
    rescaled = section("scale", channels=["plc.flow"], factor=2.0, unit="l/h")
    found = shape("plc.*", transforms=[rescaled, section("smooth", span="1s")])
    assert [channel.unit for channel in found.outputs.channels] == ["l/h", "mm/s"]
    assert found.outputs.period == found.joined.period


def test_any_periods_are_joined_and_a_row_that_drops_most_of_a_channel_s_values_is_told():
    found = shape("plc.*", "vib.x", "lab.*", period=35 * MS)
    assert found.joined.period == 35 * MS
    assert [(channel.id, slots) for channel, slots in found.thinned] == [("vib.x", 4)]
    assert shape("plc.*", "vib.x", period=20 * MS).thinned == ()


def test_each_chain_is_fresh():
    schema = SOURCES["plc"]
    sections = [section("smooth", span="1s")]
    assert chain(sections, schema)[0][0] is not chain(sections, schema)[0][0]


@pytest.mark.parametrize(
    ("arguments", "key", "message"),
    [
        ({"patterns": ["pump.*"]}, ("channels",), "match nothing"),
        (
            {"patterns": ["plc.*"], "features": [section("summarize", channels=["vib.*"])]},
            ("features", 0, "channels"),
            "none of the pipeline's channels is vib.*",
        ),
        (
            {"patterns": ["vib.*"], "features": [section("summarize", channels=["vib.*"], every="15ms")]},
            ("features", 0),
            "every is no multiple of the rows' period, 10 ms",
        ),
        (
            {
                "patterns": ["vib.*"],
                "features": [section("summarize", every=each) for each in ("50ms", "100ms")],
            },
            ("features",),
            "there would be two channels 'vib.x.rms'",
        ),
        (
            {"patterns": ["plc.*"], "transforms": [section("smooth", channels=["vib.*"], span="1s")]},
            ("transforms", 0),
            "no channel matches vib.*",
        ),
        (
            {
                "patterns": ["plc.*"],
                "transforms": [section("smooth", span="1s"), section("summarize", every="1s")],
            },
            ("transforms", 1),
            "changes the period of the rows; only features may",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_key_to_blame(arguments, key, message):
    with pytest.raises(ShapeError, match=re.escape(message)) as refused:
        shape(*arguments.pop("patterns"), **arguments)
    assert refused.value.key == key
    assert isinstance(refused.value, ConfigError)


def test_a_slow_channel_may_be_led_on_at_the_rate_of_the_others():
    leading = section("resample", channels=["lab.*"], every="100ms", method="linear")
    found = shape("lab.*", "plc.*", features=[leading])
    assert ids(found.joined) == ["plc.flow", "plc.level", "lab.ph"]
    assert found.joined.period == 100 * MS


def test_what_one_transform_makes_the_next_one_may_read():
    made = [
        section("rate", channels=["plc.level"], keep=True),
        section("expression", name="plc.balance", formula="plc.flow - plc.level.rate"),
        section("smooth", channels=["plc.balance"], span="1s", method="median"),
    ]
    assert ids(shape("plc.*", transforms=made).outputs) == [
        "plc.flow",
        "plc.level",
        "plc.level.rate",
        "plc.balance",
    ]
    with pytest.raises(ShapeError, match=r"no channel 'plc\.level\.rate' here") as caught:
        shape("plc.*", transforms=made[1:])
    assert caught.value.key == ("transforms", 0)
